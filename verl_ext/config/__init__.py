# SPDX-License-Identifier: Apache-2.0
"""The files of Hydra's groups `perception`, `recipe` and `platform`."""
