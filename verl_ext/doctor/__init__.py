# SPDX-License-Identifier: Apache-2.0
"""`verl-ext doctor`: does this installation work, and can a given configuration train?

Modules here import verl and torch inside the checks, so that a broken one is a line of the report.
"""
