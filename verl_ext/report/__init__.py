# SPDX-License-Identifier: Apache-2.0
"""One page about runs, made from their files."""
