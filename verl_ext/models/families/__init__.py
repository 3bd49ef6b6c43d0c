# SPDX-License-Identifier: Apache-2.0
"""The verified families, a file for each architecture, and the models that are refused with the reason why."""
