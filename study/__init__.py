# SPDX-License-Identifier: Apache-2.0
"""A controlled comparison of the methods on the tiny model: `bash scripts/compare.sh`."""
