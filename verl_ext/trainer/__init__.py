# SPDX-License-Identifier: Apache-2.0
"""The driver's side of a training step: rollout batch, signal passes, registered advantage estimators, metrics."""
