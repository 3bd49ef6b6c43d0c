# SPDX-License-Identifier: Apache-2.0
"""What perception methods ask of an engine, and who does it for which of verl's engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from verl_ext.passes.ablated_view import AblatedView
from verl_ext.passes.signals_by_pass import Plan


class Passes(Protocol):
    """The clean and the ablated pass over one kind of engine."""

    def prepare(self, engine: Any, response_only_logits: bool | None, plan: Plan, share: bool | None = None) -> None:
        """Fit the engine, once it has built its model, with what its passes and updates need.

        Args:
            engine: one of verl's, of the actor or the reference.
            response_only_logits: whether logits of response tokens alone are computed; None where possible.
            plan: the signals of the run.
            share: whether a group's prompt is computed once; None where possible.

        Raises:
            ConfigurationError: `share` is True and the engine or its model cannot.
        """
        ...

    def measuring(
        self, engine: Any, plan: Plan, views: Mapping[str, AblatedView], vision_token_ids: Sequence[int]
    ) -> AbstractContextManager[None]:
        """While open, the engine's own pass also measures what `plan` assigns to the clean pass.

        Args:
            engine: the actor's.
            plan: which signals.
            views: the ablated views by name.
            vision_token_ids: ids of the placeholders that image features replace.
        """
        ...

    def running(self, engine: Any, view: AblatedView) -> AbstractContextManager[None]:
        """While open, the engine runs `view` of what it is given in place of the clean one."""
        ...


def passes_of(engine: Any) -> Passes:
    """The passes for the kind of `engine`."""
    # Imported where needed: no other engine's code is loaded.
    if engine.engine_config.strategy == "megatron":
        from verl_ext.passes.megatron import passes as megatron_passes

        return megatron_passes
    from verl_ext.passes.fsdp import passes as fsdp_passes

    return fsdp_passes
