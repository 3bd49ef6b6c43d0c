# SPDX-License-Identifier: Apache-2.0
"""What differs between model families: image tokens, patch rows, vision tower, decoder and head, under any wrapper."""
