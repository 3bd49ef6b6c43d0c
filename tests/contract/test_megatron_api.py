# SPDX-License-Identifier: Apache-2.0
"""verl's Megatron engine as this package knows it, read from its source: it cannot be imported without Megatron-Core.

`tests/regression/test_megatron.py` runs it.
"""

import ast
import importlib.metadata
import importlib.util
from pathlib import Path

import pytest

ENGINE = "workers/engine/megatron/transformer_impl.py:MegatronEngineWithLMHead"
BASE = "workers/engine/megatron/transformer_impl.py:MegatronEngine"
FORWARD = "models/mcore/model_forward.py:gptmodel_forward_model_engine"
FUSED = "models/mcore/model_forward_fused.py:fused_forward_model_engine"
UTIL = "models/mcore/util.py:"

# What is relied on: the function, the file that does, its leading parameters, and what it says.
RELIED_ON = [
    (
        f"{BASE}.forward_backward_batch",
        "forward_step.py",
        "self data",
        ["self.forward_step,", "postprocess_batch_func"],
    ),
    (f"{BASE}.__init__", "engine_passes.py", "self model_config engine_config", ["self.engine_config = engine_config"]),
    (
        f"{ENGINE}.forward_step",
        "megatron/similarity.py",
        "self batch_iter model",
        [
            "next(batch_iter)",
            "self._lm_head_logits_processor",
            "batch=batch",
            "return (output, partial(postprocess_micro_batch_func",
        ],
    ),
    (
        f"{ENGINE}._lm_head_logits_processor",
        "megatron/response_logits.py",
        "self logits label temperature",
        ["logits.div_(temperature", "ret['log_probs']", "ret['entropy']"],
    ),
    (f"{ENGINE}.prepare_model_outputs", "megatron/similarity.py", "self output data", ["return output"]),
    (
        FORWARD,
        "megatron/response_logits.py",
        "model input_ids multi_modal_inputs",
        [
            "logits_processor(output_orig, **args)",
            "packed_seq_params=packed_seq_params",
            "need_roll=k == 'label'",
            "if 'pixel_values' in multi_modal_inputs",
        ],
    ),
    (FUSED, "megatron/similarity.py", "vision_model", ["output = {'log_probs': log_probs}"]),
    (
        f"{UTIL}preprocess_thd_engine",
        "megatron/cut.py",
        "input_ids",
        ["cu_seqlens_q_padded=cu_seqlens_padded", "half_seqlen = seqlen // 2", "half_seqlen * cp_rank"],
    ),
    (f"{UTIL}preprocess_bshd_engine", "megatron/cut.py", "input_ids", ["chunk_len = max_seqlen // (2 * cp_size)"]),
]


def function(name):
    """The definition of `file:qualified.name` in the installed verl."""
    file, _, qualified = name.partition(":")
    node = ast.parse((Path(importlib.util.find_spec("verl").origin).parent / file).read_text())
    for part in qualified.split("."):
        node = next(child for child in node.body if getattr(child, "name", None) == part)
    return node


@pytest.mark.parametrize(("name", "used_in", "parameters", "source"), RELIED_ON, ids=[entry[0] for entry in RELIED_ON])
def test_verls_megatron_engine(name, used_in, parameters, source):
    found = function(name)
    where = f"verl {importlib.metadata.version('verl')}: {name}, on which verl_ext/passes/{used_in} relies,"
    names = [argument.arg for argument in found.args.args]
    expected = parameters.split()
    assert names[: len(expected)] == expected, f"{where} takes {names}"
    text = ast.unparse(found)
    missing = [part for part in source if part not in text]
    assert not missing, f"{where} no longer says {missing}"
