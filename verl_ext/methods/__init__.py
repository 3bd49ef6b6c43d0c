# SPDX-License-Identifier: Apache-2.0
"""How signals become credit: a file a method, and what they share."""
