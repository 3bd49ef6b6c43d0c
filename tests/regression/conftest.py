# SPDX-License-Identifier: Apache-2.0
"""What the modules that build verl's workers in this process share."""

import pytest
import torch
from support import batches, tiny, workers


@pytest.fixture(scope="module")
def process_group():
    """A process group of one rank, and transformers as it was before verl replaced parts of it."""
    with workers.process_group():
        yield


@pytest.fixture(scope="module")
def rows():
    """Eight rows for four prompts, lengths and image counts all different."""
    return batches.rows(tiny.model(torch.float32))
