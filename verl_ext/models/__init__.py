# SPDX-License-Identifier: Apache-2.0
"""What differs between model families, one file each in `families`, and the parts of a model found by it."""
