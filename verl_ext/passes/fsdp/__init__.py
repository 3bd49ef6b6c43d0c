# SPDX-License-Identifier: Apache-2.0
"""The passes inside verl's FSDP engine, whose ranks may share a sequence (Ulysses)."""
