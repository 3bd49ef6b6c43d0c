# SPDX-License-Identifier: Apache-2.0
"""What is measured during verl's own old-log-prob pass, and right beside it.

Each `with_*` function takes a forward step and returns one that also measures: it adds a jagged field a signal to the
step's `model_output`. :func:`measuring` stacks them on an engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import response_from_nested

from verl_ext.integration.ablated_pass import AblatedView
from verl_ext.integration.forward_step import ForwardStep, forward_step_replaced
from verl_ext.integration.language_model import decoder, head, hooks
from verl_ext.integration.plan import Plan
from verl_ext.integration.token_layout import as_response_field, token_layout
from verl_ext.signals.entropy import truncated_entropy
from verl_ext.signals.full_vocabulary import ViewComparison, view_divergences
from verl_ext.signals.request import AblatedLogProb, Divergence, Entropy, Signal, Similarity
from verl_ext.signals.similarity import SimilarityAccumulator

TOKEN_CHUNK = 512
"""Response tokens whose logits are copied at a time."""


def measuring(
    engine: Any, plan: Plan, views: Mapping[str, AblatedView], vision_token_ids: Sequence[int]
) -> AbstractContextManager[None]:
    """While open, `engine`'s forward steps also measure what `plan` assigns to the clean pass.

    Args:
        engine: one of verl's FSDP engines.
        plan: which signals.
        views: the ablated views by name.
        vision_token_ids: ids of the placeholders that image features replace.
    """

    def wrap(own: ForwardStep) -> ForwardStep:
        step = own
        for similarity in plan.similarities:
            step = with_similarity(step, engine.module, similarity, vision_token_ids)
        for entropy in plan.entropies:
            step = with_truncated_entropy(step, engine.module, entropy)
        paired = [(views[view], signals) for view, signals in plan.paired.items()]
        return with_views(step, own, engine.module, paired) if paired else step

    return forward_step_replaced(engine, wrap) if plan.in_clean_pass else nullcontext()


def with_similarity(
    step: ForwardStep, model: torch.nn.Module, signal: Similarity, vision_token_ids: Sequence[int]
) -> ForwardStep:
    """Also measure `signal` from the hidden states as the layers compute them; none is kept."""

    def forward_step(micro_batch: TensorDict, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        layout = token_layout(micro_batch, vision_token_ids)
        accumulator = SimilarityAccumulator(layout, signal.score, signal.layers, signal.pooling)  # type: ignore[arg-type]
        with _hidden_states_added(model, accumulator, every_layer=signal.layers == "all"):
            loss, output = step(micro_batch, *args, **kwargs)
        output["model_output"][signal.field] = as_response_field(accumulator.result(), micro_batch)
        return loss, output

    return forward_step


def with_truncated_entropy(step: ForwardStep, model: torch.nn.Module, signal: Entropy) -> ForwardStep:
    """Also measure `signal` from the logits as the head computes them, a few tokens at a time."""

    def forward_step(micro_batch: TensorDict, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        where = _predictors(micro_batch)
        parts: list[Tensor] = []

        def read(_head: torch.nn.Module, _args: Any, logits: Tensor) -> None:
            flat = logits.flatten(0, -2)
            # With response-only logits there are no others.
            rows = where if len(flat) > len(where) else torch.arange(len(where), device=flat.device)
            parts.extend(
                truncated_entropy(flat[part], signal.top_p, temperature=_temperature(micro_batch))
                for part in rows.split(TOKEN_CHUNK)
            )

        with hooks(head(model).register_forward_hook(read)):
            loss, output = step(micro_batch, *args, **kwargs)
        output["model_output"][signal.field] = as_response_field(torch.cat(parts), micro_batch)
        return loss, output

    return forward_step


def with_views(
    step: ForwardStep,
    own: ForwardStep,
    model: torch.nn.Module,
    views: Sequence[tuple[AblatedView, Sequence[Signal]]],
) -> ForwardStep:
    """Also run ablated views of the same micro-batch and compare each with the clean one over the whole vocabulary.

    Between the runs only the clean states that the head saw at response tokens are held; logits are made anew, a part
    of the vocabulary at a time.

    Args:
        step: runs and measures the clean view.
        own: the engine's own forward step, for the ablated views.
        model: the engine's model.
        views: the ablated views, each with what to keep of its comparison.
    """

    def forward_step(micro_batch: TensorDict, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        clean: list[Tensor] = []
        with _head_inputs(model, _predictors(micro_batch), lambda _head, states: clean.append(states)):
            loss, output = step(micro_batch, *args, **kwargs)
        for view, signals in views:
            ablated_batch = view.of(micro_batch)
            tu.assign_non_tensor(ablated_batch, calculate_entropy=False)
            with view.running(model), _compared_with(model, clean[0], ablated_batch) as compared:
                _, ablated = own(ablated_batch, *args, **kwargs)
            for signal in signals:
                output["model_output"][signal.field] = _kept(signal, compared[0], ablated["model_output"], micro_batch)
        return loss, output

    return forward_step


@contextmanager
def _compared_with(model: torch.nn.Module, clean: Tensor, ablated_batch: TensorDict) -> Iterator[list[ViewComparison]]:
    """While open, a run of `ablated_batch` appends its comparison with the clean states (N, D) to the list."""
    compared: list[ViewComparison] = []
    temperature = _temperature(ablated_batch)

    def compare(lm_head: torch.nn.Linear, states: Tensor) -> None:
        compared.append(view_divergences(clean, states, lm_head.weight, lm_head.bias, temperature=temperature))

    with _head_inputs(model, _predictors(ablated_batch), compare):
        yield compared


def _kept(signal: Signal, compared: ViewComparison, ablated: Mapping[str, Tensor], micro_batch: TensorDict) -> Tensor:
    """(B, j) jagged fp32 values of one signal of a paired view."""
    if isinstance(signal, AblatedLogProb):
        log_probs = ablated["log_probs"]
        return response_from_nested(log_probs, micro_batch["responses"].to(log_probs.device)).float()
    if isinstance(signal, Divergence):
        return as_response_field(compared.kl if signal.kind == "kl" else compared.jsd, micro_batch)
    return as_response_field(compared.ablated_entropy, micro_batch)


def _predictors(micro_batch: TensorDict) -> Tensor:
    """(N,) flat positions of the states whose distributions the response tokens were drawn from."""
    return token_layout(micro_batch, ()).tokens - 1


def _temperature(micro_batch: TensorDict) -> float:
    return float(tu.get_non_tensor_data(data=micro_batch, key="temperature", default=1.0))


@contextmanager
def _hidden_states_added(
    model: torch.nn.Module, accumulator: SimilarityAccumulator, every_layer: bool
) -> Iterator[None]:
    """Add the embeddings, each layer's output, and the last one's after the final norm; or the last alone."""
    text = decoder(model)

    def add_output(_module: torch.nn.Module, _args: Any, output: Any) -> None:
        accumulator.add(output[0] if isinstance(output, tuple) else output)

    def add_input(_module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        accumulator.add(args[0] if args else kwargs["hidden_states"])

    handles = [text.norm.register_forward_hook(add_output)]
    if every_layer:
        handles.append(text.layers[0].register_forward_pre_hook(add_input, with_kwargs=True))
        handles += [layer.register_forward_hook(add_output) for layer in text.layers[:-1]]
    with hooks(*handles):
        yield


def _head_inputs(model: torch.nn.Module, where: Tensor, use: Any) -> AbstractContextManager[None]:
    """While open, call `use(head, states (N, D))` with what the head is given at the flat positions `where`.

    Called before the head runs, when FSDP has gathered its weight.
    """

    def read(lm_head: torch.nn.Module, args: Any) -> None:
        use(lm_head, args[0].flatten(0, -2)[where])

    return hooks(head(model).register_forward_pre_hook(read))
