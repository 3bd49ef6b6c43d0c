# SPDX-License-Identifier: Apache-2.0
"""verl's worker roles on the actor's devices: what they measure beside verl's passes, and the loss they train with."""
