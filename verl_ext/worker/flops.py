# SPDX-License-Identifier: Apache-2.0
"""verl's estimate of FLOPs, which only a metric (MFU) is made of."""

from __future__ import annotations

from typing import Any

from verl_ext.models.available import family_of


def mend_flops_counter(worker: Any, hf_config: Any) -> None:
    """Have verl count none for a model whose estimate would fail, as it does for models that it has no estimate of.

    Args:
        worker: verl's training worker, with a `flops_counter`.
        hf_config: of its model.
    """
    if not family_of(hf_config.model_type).counts_flops and worker.flops_counter is not None:
        worker.flops_counter.config = hf_config.get_text_config()
