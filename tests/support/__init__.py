# SPDX-License-Identifier: Apache-2.0
"""Real parts that several tests build on: the tiny model, batches of real questions, verl's engine in this process."""
