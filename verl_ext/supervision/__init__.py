# SPDX-License-Identifier: Apache-2.0
"""What watches a run and stops it with a reason: processes, numbers, files, checkpoints, rollout and actor."""
