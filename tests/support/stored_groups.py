# SPDX-License-Identifier: Apache-2.0
"""Groups of responses as the agent loop worker stores them, without its servers."""

import asyncio
import pickle
from dataclasses import dataclass, field

import transfer_queue as tq
from transfer_queue import KVBatchMeta
from verl.experimental.agent_loop import AgentLoopOutput
from verl.utils.tokenizer import hf_processor

from support import queue, tiny
from support.configuration import configuration
from verl_ext.rollout.agent_loops import PerceptionAgentLoopWorker

PROCESSOR = hf_processor(str(tiny.MODEL))
RESPONSES = ["a red circle", "\\boxed{no}", "teal", "\\boxed{circle} it is", "blue"]


@dataclass
class Group:
    """A prompt and what its sessions show: pictures by session, each list one response.

    Of `outputs` rows each a session consists; the stored prompt has the pictures of the first session.
    """

    uid: str
    pictures: list
    question: str = "what color is the shape?"
    outputs: int = 1
    failing: set = field(default_factory=set)

    @property
    def raw_prompt(self):
        parts = [{"type": "image", "image": picture} for picture in self.pictures[0]]
        return [{"role": "user", "content": [*parts, {"type": "text", "text": self.question}]}]

    @property
    def keys(self):
        sessions = [session for session in range(len(self.pictures)) if session not in self.failing]
        return [f"{self.uid}_{session}_{index}" for session in sessions for index in range(self.outputs)]


class Worker(PerceptionAgentLoopWorker):
    """The real worker, whose sessions have their responses already, and their scores."""

    def __init__(self, *overrides, reward_workers=()):
        self.processor, self.tokenizer, self.mm_processor_kwargs = PROCESSOR, PROCESSOR.tokenizer, {}
        self.reward_loop_worker_handles, self.distillation_enabled = reward_workers, False
        self.config = configuration("+perception=pgpo", *overrides)
        self.group = None

    async def _run_agent_loop(self, _sampling, trajectory, *, trace, session_id, **kwargs):
        pictures = self.group.pictures[session_id]
        outputs = [output_of(self.group, pictures, session_id + index) for index in range(self.group.outputs)]
        if session_id in self.group.failing:
            kwargs["unstorable"] = (pieces for pieces in ())
        await self._agent_loop_postprocess(outputs, trajectory["validate"], session_id=session_id, **kwargs)


def output_of(group, pictures, index):
    """An agent loop's output to the question of `group`, with these pictures."""
    parts = [{"type": "image"} for _ in pictures] + [{"type": "text", "text": group.question}]
    text = PROCESSOR.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    prompt = PROCESSOR(text=[text], images=pictures or None, return_tensors="pt")["input_ids"][0].tolist()
    response = PROCESSOR.tokenizer.encode(RESPONSES[index % len(RESPONSES)])
    return AgentLoopOutput(
        prompt_ids=prompt,
        response_ids=response,
        response_mask=[1] * len(response),
        response_logprobs=[-0.5] * len(response),
        reward_score=float(index % 2),
        metrics={},
        extra_fields={"reward_extra_info": {}},
        multi_modal_data={"images": pictures} if pictures else {},
    )


def store(worker, *groups):
    """Run the sessions of each group; returns verl's handle of the rows that were stored."""
    for group in groups:
        worker.group = group
        worker.config.actor_rollout_ref.rollout.n = len(group.pictures)
        prompt = {"uid": group.uid, "raw_prompt": group.raw_prompt, "global_steps": 1}
        asyncio.run(worker._run_prompt(prompt, {}, {"validate": False}))
    return handle([key for group in groups for key in group.keys])


def handle(keys):
    """verl's handle of the rows with these keys."""
    tags = tq.kv_list(queue.PARTITION)[queue.PARTITION]
    return KVBatchMeta(keys=keys, tags=[tags[key] for key in keys], partition_id=queue.PARTITION)


def clear(*groups):
    """What verl's trainer and its replay buffer clear."""
    tq.kv_clear(keys=[key for group in groups for key in (group.uid, *group.keys)], partition_id=queue.PARTITION)


def picture_bytes(meta):
    """Bytes of all that holds pictures in the rows of a batch: pixels, and the messages of the prompt."""
    fields = tq.kv_batch_get(
        keys=meta.keys, partition_id=queue.PARTITION, select_fields=["multi_modal_inputs", "raw_prompt"]
    )
    return sum(len(pickle.dumps(getattr(row, "data", row))) for rows in fields.values() for row in rows)
