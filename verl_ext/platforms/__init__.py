# SPDX-License-Identifier: Apache-2.0
"""Devices that verl does not know: the CPU."""
