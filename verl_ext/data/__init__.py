# SPDX-License-Identifier: Apache-2.0
"""Data sets: from pictures and tables to the rows that verl reads, checked."""
