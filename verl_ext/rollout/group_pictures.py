# SPDX-License-Identifier: Apache-2.0
"""Which of a group's rows carries its pictures to TransferQueue; the others name that row.

verl stores pixels with each of the n responses. It samples, trains and clears a group's rows together, so that a row
lives as long as those that name it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from verl_ext.vocabulary import PIXELS_OF

Inputs = dict[str, Any]


def sends_pictures_once(config: DictConfig) -> bool:
    """Whether the rows of a run may name each other.

    Not where a sampler of the user's own may part a group, nor where verl stores rollouts and gives them other keys.

    Args:
        config: the whole configuration.
    """
    sampler = OmegaConf.select(config, "trainer.v1.sampler.custom_sampler") or {}
    parted = bool(sampler.get("path") and sampler.get("name"))
    renamed = bool(OmegaConf.select(config, "skip.rollout_tq.enable"))
    return OmegaConf.select(config, "perception.share_prompts") is not False and not parted and not renamed


@dataclass
class _Session:
    """The rows that a session stores: its name, what carries which pixels, and how many rows it has made."""

    name: str
    carriers: dict[bytes, str]
    rows: int = 0


_storing: ContextVar[_Session | None] = ContextVar("storing", default=None)


@dataclass
class GroupPictures:
    """The pictures that the rows of one prompt have carried so far.

    An agent loop may show the responses to a prompt different pictures: what counts is the content of the pixels.
    """

    _carriers: dict[bytes, str] = field(default_factory=dict)
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def stored_by(self, session: str) -> AsyncIterator[None]:
        """While open, the task makes and stores the rows of `session` (`{uid}_{session_id}`), in order.

        The sessions of a group do so one after another, and what one has carried can be named when it is left without
        an error: no row names one that is not there.
        """
        async with self._one_at_a_time:
            rows = _Session(session, dict(self._carriers))
            token = _storing.set(rows)
            try:
                yield
            finally:
                _storing.reset(token)
            self._carriers = rows.carriers


def as_stored(inputs: Inputs) -> Inputs:
    """What of the next row's `multi_modal_inputs` is stored: all, or without pixels that another row carries.

    Both have the carrying row's key beside it. Outside of :meth:`GroupPictures.stored_by` nothing changes.
    """
    session = _storing.get()
    if session is None:
        return inputs
    key = f"{session.name}_{session.rows}"
    session.rows += 1
    pixels = inputs.get("pixel_values")
    if not isinstance(pixels, torch.Tensor):
        return inputs
    carrier = session.carriers.setdefault(_digest(pixels), key)
    kept = inputs if carrier == key else {name: value for name, value in inputs.items() if name != "pixel_values"}
    return {**kept, PIXELS_OF: carrier}


def without_pictures(messages: Any) -> Any:
    """Chat messages with placeholders for their images. verl keeps the messages with every row.

    Args:
        messages: a list of dicts with `content`, a text or a list of parts; anything else is returned as it is.
    """
    if isinstance(messages, list):
        return [without_pictures(message) for message in messages]
    if not isinstance(messages, dict):
        return messages
    if messages.get("type") == "image":
        return {"type": "image"}
    return {**messages, "content": without_pictures(messages["content"])} if "content" in messages else messages


def _digest(pixels: torch.Tensor) -> bytes:
    """The same for the same type, shape and values."""
    found = hashlib.blake2b(f"{pixels.dtype} {tuple(pixels.shape)}".encode(), digest_size=16)
    found.update(pixels.contiguous().flatten().view(torch.uint8).numpy().data)
    return found.digest()
