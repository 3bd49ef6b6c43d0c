# SPDX-License-Identifier: Apache-2.0
"""verl's estimate of FLOPs, on the families whose configuration it misreads."""

from types import SimpleNamespace

import pytest
from support import families
from transformers import AutoConfig
from verl.utils.flops_counter import FlopsCounter

from verl_ext.worker.flops import mend_flops_counter


def counted(name, mended):
    config = AutoConfig.from_pretrained(families.path(name))
    worker = SimpleNamespace(flops_counter=FlopsCounter(config))
    if mended:
        mend_flops_counter(worker, config)
    return worker.flops_counter.estimate_flops([10, 20], 1.0)[0]


def test_glm_has_none():
    with pytest.raises(AttributeError):
        counted("glm4v", mended=False)
    assert counted("glm4v", mended=True) == 0


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_others_keep_theirs(name):
    assert counted(name, mended=True) == counted(name, mended=False) > 0


def test_a_worker_without_a_counter():
    mend_flops_counter(SimpleNamespace(flops_counter=None), AutoConfig.from_pretrained(families.path("glm4v")))
