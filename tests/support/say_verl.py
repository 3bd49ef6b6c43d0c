# SPDX-License-Identifier: Apache-2.0
"""Says where a process of a run has its verl from; loaded by VERL_USE_EXTERNAL_MODULES."""

from importlib.util import find_spec

print(f"verl comes from {find_spec('verl').origin}", flush=True)
