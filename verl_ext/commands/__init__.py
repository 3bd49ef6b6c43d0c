# SPDX-License-Identifier: Apache-2.0
"""What `verl-ext <name>` does: one module a command, each with a click command called `command`."""
