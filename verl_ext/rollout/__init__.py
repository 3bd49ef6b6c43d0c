# SPDX-License-Identifier: Apache-2.0
"""What stands around verl's rollout: the checked data set before it, the responses after it."""
