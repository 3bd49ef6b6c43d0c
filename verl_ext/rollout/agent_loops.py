# SPDX-License-Identifier: Apache-2.0
"""What happens to a response before verl stores it: to its pictures, and to vision placeholders that the model sampled.

Placeholders are taken out of the loss, replaced, and counted. A placeholder stands for the features of a picture, and
one that the model made up has none: verl's position ids, and later the model, fail on it, and the whole group of
responses with it. verl's own vLLM server never samples one; other rollouts and agent loops may.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextvars import ContextVar
from typing import Any

import ray
from verl.experimental.agent_loop import AgentLoopOutput
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ
from verl.workers.rollout.utils import get_vision_placeholder_token_ids

from verl_ext.errors import ConfigurationError
from verl_ext.models.facts import sends_all_image_tokens
from verl_ext.rollout.group_pictures import GroupPictures, as_stored, sends_pictures_once, without_pictures
from verl_ext.rollout.image_prompts import one_token_an_image
from verl_ext.vocabulary import IMAGE_TOKENS_MASKED


def mask_placeholders(output: AgentLoopOutput, placeholders: Collection[int], neutral: int) -> int:
    """Give every one of `placeholders` that the model sampled the mask 0 and the token `neutral`.

    What a tool returned (mask 0) stays as it is. Lengths do not change, so that log-probabilities keep their places.
    An estimator that hands rewards from token to token (gae, reinforce_plus_plus) ignores a reward whose token has the
    mask 0, hence that of a response whose last token is replaced.

    Returns:
        How many tokens that were; the count is also left in the output's `extra_fields`, unless it is 0.
    """
    sampled = [
        place
        for place, (token, mask) in enumerate(zip(output.response_ids, output.response_mask, strict=True))
        if mask and token in placeholders
    ]
    if sampled:
        output.response_ids = _with(output.response_ids, sampled, neutral)
        output.response_mask = _with(output.response_mask, sampled, 0)
        output.extra_fields = {**output.extra_fields, IMAGE_TOKENS_MASKED: len(sampled)}
    return len(sampled)


def neutral_token_id(tokenizer: Any, placeholders: Collection[int]) -> int:
    """The token that takes a placeholder's place: the tokenizer's padding token, or else its end token.

    Both are special, so that they vanish where a reward function gets text, as the placeholder would have. verl tells
    lengths by sizes and never by a token, so that neither ends a response early; padding comes first because a reader
    of tokens may take the other for the end of a turn.

    Raises:
        ConfigurationError: the tokenizer has neither, or both are placeholders themselves.
    """
    candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    usable = [token for token in candidates if token is not None and token not in placeholders]
    if not usable:
        remedy = "its tokenizer has no padding or end token to put in place of an image token that the model sampled"
        raise ConfigurationError(
            key="actor_rollout_ref.model.path", value=tokenizer.name_or_path, remedy=f"{remedy}; give it one"
        )
    return int(usable[0])


_group: ContextVar[GroupPictures | None] = ContextVar("group", default=None)
"""Of the prompt whose sessions this task, or one that it has started, runs."""


class PerceptionAgentLoopWorker(AgentLoopWorkerTQ.__ray_actor_class__):  # type: ignore[misc, name-defined]
    """verl's worker, which masks sampled placeholders before it scores, measures and stores a response.

    Of the responses to a prompt that have the same pictures, one is stored with them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Ray sends what a class inherits by value where the class's name leads to an actor class, and without an
        # `__init__` of its own `super()` in verl's would look for a copy of verl's class.
        super().__init__(*args, **kwargs)
        if sends_all_image_tokens(self.processor):
            placeholders = frozenset(get_vision_placeholder_token_ids(self.processor))
            self.llm_client.generate = one_token_an_image(self.llm_client.generate, placeholders)

    async def _run_prompt(
        self, prompt: dict[str, Any], sampling_params: dict[str, Any], trajectory: dict[str, Any], trace: bool = False
    ) -> None:
        # In a task of its own, whose context the tasks of its sessions inherit.
        _group.set(GroupPictures() if sends_pictures_once(self.config) else None)
        await super()._run_prompt(prompt, sampling_params, trajectory, trace)

    async def _agent_loop_postprocess(
        self, output: AgentLoopOutput | list[AgentLoopOutput], validate: bool, **kwargs: Any
    ) -> None:
        outputs = output if isinstance(output, list) else [output]
        if placeholders := frozenset(get_vision_placeholder_token_ids(self.processor)):
            neutral = neutral_token_id(self.tokenizer, placeholders)
            for each in outputs:
                mask_placeholders(each, placeholders, neutral)
        group = _group.get()
        if group is None or not outputs:
            await super()._agent_loop_postprocess(output, validate, **kwargs)
            return
        # verl scores what has no score yet; here, so that no session waits for the score of another.
        await self._compute_score(outputs, kwargs=kwargs)
        if self.reward_loop_worker_handles is not None and "raw_prompt" in kwargs:
            # Otherwise the trainer reads it for a reward model.
            kwargs["raw_prompt"] = without_pictures(kwargs["raw_prompt"])
        async with group.stored_by(f"{kwargs['uid']}_{kwargs['session_id']}"):
            await super()._agent_loop_postprocess(output, validate, **kwargs)

    def _compute_multi_modal_inputs(self, output: AgentLoopOutput, input_ids: Any) -> dict[str, Any]:
        return as_stored(super()._compute_multi_modal_inputs(output, input_ids))


class PerceptionAgentLoopManager(AgentLoopManagerTQ):
    """verl's manager with the workers above; what the perception trainers use unless the configuration names another.

    Another manager, named by `actor_rollout_ref.rollout.agent.agent_loop_manager_class`, masks nothing.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(PerceptionAgentLoopWorker)


def _with(values: list[int], places: Iterable[int], value: int) -> list[int]:
    """A copy of `values` that has `value` at `places`."""
    changed = list(values)
    for place in places:
        changed[place] = value
    return changed
