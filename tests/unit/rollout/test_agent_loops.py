# SPDX-License-Identifier: Apache-2.0
"""Image and video placeholders that the model sampled are replaced, masked and counted before verl sees them."""

import asyncio
import copy

import pytest
import ray
import transfer_queue as tq
from hypothesis import given
from hypothesis import strategies as st
from support import queue, tiny
from support.configuration import configuration
from transfer_queue import KVBatchMeta
from transformers import AutoTokenizer
from verl.experimental.agent_loop import AgentLoopOutput
from verl.utils.import_utils import load_class_from_fqn
from verl.utils.tokenizer import hf_processor
from verl.workers.rollout.utils import get_vision_placeholder_token_ids

from verl_ext.errors import ConfigurationError
from verl_ext.rollout.agent_loops import (
    PerceptionAgentLoopManager,
    PerceptionAgentLoopWorker,
    mask_placeholders,
    neutral_token_id,
)
from verl_ext.trainer.metrics import masked_metrics
from verl_ext.trainer.perception_trainer import AGENT_LOOP_MANAGER
from verl_ext.trainer.rollout_batch import RolloutBatch
from verl_ext.trainer.trainers import PerceptionTrainerSync

PROCESSOR = hf_processor(str(tiny.MODEL))
TOKENIZER = PROCESSOR.tokenizer
IMAGE, VIDEO = get_vision_placeholder_token_ids(PROCESSOR)
NEUTRAL = TOKENIZER.pad_token_id
TOKENS = st.sampled_from([IMAGE, VIDEO, NEUTRAL, TOKENIZER.eos_token_id, 20, 21, 22])


def output_of(tokens, mask=None, **fields):
    """An agent loop's output without a picture."""
    mask = [1] * len(tokens) if mask is None else list(mask)
    log_probs = [-0.5 * place for place in range(len(tokens))]
    return AgentLoopOutput(
        prompt_ids=[20, 21],
        response_ids=list(tokens),
        response_mask=mask,
        response_logprobs=log_probs,
        metrics={},
        **fields,
    )


def masked(output):
    return mask_placeholders(output, {IMAGE, VIDEO}, NEUTRAL)


@given(st.lists(st.tuples(TOKENS, st.integers(0, 1)), min_size=1, max_size=40))
def test_placements(rows):
    tokens, mask = zip(*rows, strict=True)
    output = output_of(tokens, mask, extra_fields={"turn_scores": []})
    before = copy.deepcopy(output)
    count = masked(output)
    sampled = [bool(m) and token in (IMAGE, VIDEO) for token, m in rows]
    assert count == sum(sampled)
    assert output.response_ids == [NEUTRAL if s else token for token, s in zip(tokens, sampled, strict=True)]
    assert output.response_mask == [0 if s else m for m, s in zip(mask, sampled, strict=True)]
    assert output.response_logprobs == before.response_logprobs
    assert output.prompt_ids == before.prompt_ids
    assert output.extra_fields.pop("image_tokens_masked", 0) == count
    assert output.extra_fields == before.extra_fields
    assert {len(value) for name, value in output.as_dict().items() if name.startswith("response")} == {len(tokens)}


@given(st.lists(st.tuples(TOKENS, st.integers(0, 1)), min_size=1, max_size=40))
def test_what_is_masked_is_masked_once(rows):
    output = output_of(*zip(*rows, strict=True))
    masked(output)
    once = copy.deepcopy(output)
    assert masked(output) == 0
    assert output == once


def test_nothing_changes_without_placeholders():
    """Not even which fields were set, by which verl chooses what it stores."""
    output, same = output_of([20, 21]), output_of([20, 21])
    assert masked(output) == 0
    assert output.model_dump(exclude_unset=True) == same.model_dump(exclude_unset=True)


def test_the_neutral_token_is_special_and_no_placeholder():
    assert neutral_token_id(TOKENIZER, {IMAGE, VIDEO}) == NEUTRAL
    assert TOKENIZER.decode([20, NEUTRAL, 21], skip_special_tokens=True) == TOKENIZER.decode([20, 21])


def test_a_tokenizer_without_a_usable_padding_token():
    tokenizer = AutoTokenizer.from_pretrained(tiny.MODEL)
    tokenizer.pad_token = "<|image_pad|>"
    assert neutral_token_id(tokenizer, {IMAGE, VIDEO}) == tokenizer.eos_token_id
    tokenizer.pad_token = None
    assert neutral_token_id(tokenizer, {IMAGE, VIDEO}) == tokenizer.eos_token_id
    tokenizer.eos_token = None
    with pytest.raises(ConfigurationError, match=r"actor_rollout_ref\.model\.path=.*no padding or end token"):
        neutral_token_id(tokenizer, {IMAGE, VIDEO})


class Worker(PerceptionAgentLoopWorker):
    """verl's worker without its servers: no reward, no teacher."""

    def __init__(self, processor=PROCESSOR):
        self.processor, self.tokenizer, self.mm_processor_kwargs = processor, TOKENIZER, {}
        self.reward_loop_worker_handles, self.distillation_enabled = None, False
        self.config = configuration("+perception=pgpo")


@pytest.fixture(scope="module", name="transfer_queue")
def real_queue():
    with queue.transfer_queue(configuration("+perception=pgpo")):
        yield


def stored(outputs, uid, worker=None):
    """verl's batch of the rows that the worker makes of `outputs`."""
    kwargs = {"uid": uid, "session_id": 0, "global_steps": 1, "raw_prompt": []}
    asyncio.run((worker or Worker())._agent_loop_postprocess(outputs, False, **kwargs))
    return handle([f"{uid}_0_{place}" for place in range(len(outputs) if isinstance(outputs, list) else 1)])


def handle(keys):
    """verl's handle of the rows with these keys."""
    tags = tq.kv_list(partition_id=queue.PARTITION)[queue.PARTITION]
    return KVBatchMeta(keys=keys, tags=[tags[key] for key in keys], partition_id=queue.PARTITION)


def test_verl_stores_the_masked_response(transfer_queue):
    output = output_of([20, IMAGE, VIDEO, 21], reward_score=1.0, extra_fields={})
    batch = RolloutBatch.fetch(stored(output, "masked"), "uid", "responses", "input_ids", "loss_mask", "extra_fields")
    assert batch.padded("responses").tolist() == [[20, NEUTRAL, NEUTRAL, 21]]
    assert batch.padded("input_ids").tolist() == [[20, 21, 20, NEUTRAL, NEUTRAL, 21]]
    assert batch.padded("loss_mask").tolist() == [[1, 0, 0, 1]]
    assert masked_metrics(batch.real_values("extra_fields")) == {"perception/image_tokens_masked": 2.0}


def test_every_output_of_a_trajectory_is_counted(transfer_queue):
    outputs = [output_of([20, IMAGE], extra_fields={"reward_extra_info": {}}) for _ in range(2)]
    outputs.append(output_of([21], reward_score=0.0, extra_fields={"reward_extra_info": {}}))
    batch = RolloutBatch.fetch(stored(outputs, "several"), "uid", "extra_fields")
    assert masked_metrics(batch.real_values("extra_fields")) == {"perception/image_tokens_masked": 2.0}


def test_verls_own_worker_fails_on_it(transfer_queue):
    """What the masking is for; a release of verl that copes needs it no more."""
    verls = Worker.__mro__[2]
    assert verls.__name__ == "AgentLoopWorkerTQ"
    with pytest.raises((RuntimeError, StopIteration, TypeError)):
        asyncio.run(
            verls._agent_loop_postprocess(
                Worker(), output_of([20, IMAGE], reward_score=1.0, extra_fields={}), False,
                uid="fails", session_id=0, global_steps=1, raw_prompt=[],
            )
        )  # fmt: skip


def test_a_model_without_pictures_keeps_its_tokens(transfer_queue):
    output = output_of([20, IMAGE], reward_score=1.0, extra_fields={})
    batch = RolloutBatch.fetch(stored(output, "text", Worker(processor=None)), "uid", "responses")
    assert batch.padded("responses").tolist() == [[20, IMAGE]]


@pytest.mark.parametrize("found", [[], [{}, None, {"other": 3}]])
def test_zero_is_a_number(found):
    assert masked_metrics(found) == {"perception/image_tokens_masked": 0.0}


def chosen(*overrides):
    """The manager class in the configuration that verl's task runner reads once it has a trainer."""
    config = configuration("+perception=pgpo", *overrides)
    PerceptionTrainerSync(config)
    return config.actor_rollout_ref.rollout.agent.get("agent_loop_manager_class")


@pytest.mark.parametrize("prefix", ["+", "++"])
def test_a_manager_of_the_users_own_stays(prefix):
    assert chosen(f"{prefix}actor_rollout_ref.rollout.agent.agent_loop_manager_class=mine.Manager") == "mine.Manager"


def test_verls_task_runner_finds_the_manager():
    assert load_class_from_fqn(chosen(), "AgentLoopManager") is PerceptionAgentLoopManager
    assert chosen() == AGENT_LOOP_MANAGER


def test_no_effect_on_verl_without_a_method():
    assert configuration().actor_rollout_ref.rollout.agent.get("agent_loop_manager_class") is None


@pytest.mark.slow
def test_the_managers_workers_mask_in_processes_of_their_own(transfer_queue):
    config = configuration("+perception=pgpo")
    manager = PerceptionAgentLoopManager(config, llm_client=None)
    actor = manager.agent_loop_workers_class.remote(config, None, None, None)
    kwargs = {"uid": "remote", "session_id": 0, "global_steps": 1, "raw_prompt": []}
    output = output_of([20, IMAGE, 21], reward_score=1.0, extra_fields={})
    ray.get(actor._agent_loop_postprocess.remote(output, False, **kwargs))
    batch = RolloutBatch.fetch(handle(["remote_0_0"]), "uid", "responses", "extra_fields")
    assert batch.padded("responses").tolist() == [[20, NEUTRAL, 21]]
    assert masked_metrics(batch.real_values("extra_fields")) == {"perception/image_tokens_masked": 1.0}


def test_padding_rows_are_not_counted(transfer_queue):
    meta = queue.put(
        [{**row, "extra_fields": {"image_tokens_masked": 3}} for row in queue.recorded_rows([3, 4])], padding=2
    )
    fields = RolloutBatch.fetch(meta, "uid", "extra_fields").real_values("extra_fields")
    assert masked_metrics(fields) == {"perception/image_tokens_masked": 6.0}
    assert len(fields) == 2
