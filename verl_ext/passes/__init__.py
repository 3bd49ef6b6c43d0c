# SPDX-License-Identifier: Apache-2.0
"""One micro-batch on a worker: the clean view, the ablated ones, and what is measured in them."""
