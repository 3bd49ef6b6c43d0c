# SPDX-License-Identifier: Apache-2.0
"""The `perception` section, typed and checked against the rest of verl's configuration before Ray starts."""
