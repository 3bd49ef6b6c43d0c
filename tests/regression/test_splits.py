# SPDX-License-Identifier: Apache-2.0
"""The weights of every method, whichever way verl splits the work: ranks, packing, sequences, micro-batches."""

import pytest
import torch
from support import batches, ranks, tiny, workers
from support.configuration import configuration

from verl_ext.configuration.section import parse
from verl_ext.methods.base import RolloutSignals
from verl_ext.methods.credit import method_weights
from verl_ext.methods.vppo import VPPO

pytestmark = pytest.mark.usefixtures("process_group")

PASS = {"compute_loss": False, "calculate_entropy": True, "perception_step": 3, "perception_progress": 0.4}
METHODS = [
    "+perception=tor",
    "perception.methods=[tor,pgpo,pepo,vgpo]",
    "+perception.pgpo.divergence=jsd",
    "+perception.pgpo.view=blank",
    # Black, on which every response depends enough for PGPO's division by the range of its dependency; VEPO has noise.
    "+perception.views.blank.kind=blank",
]
VEPO = ["+perception=vepo"]
# Two views, one without vision tokens and one with other pixels, and a loss term that reads one of them.
PAPO = [
    "+perception=papo_g",
    "recipe=grpo",
    "perception.methods=[papo,pepo,pgpo]",
    "+perception.pgpo.view=blind",
    "+perception.views.blind.kind=drop_vision",
]
PACKED = "actor_rollout_ref.model.use_remove_padding=True"
ULYSSES = "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size=2"
CHECKPOINTING = "actor_rollout_ref.model.enable_gradient_checkpointing=True"
ATOL = 1e-5


def fields_of(worker, rows, **settings):
    """{field: values of each row} of all passes of one worker."""
    data = {**PASS, "use_remove_padding": worker.actor.engine.use_remove_padding, **settings}
    found = dict(worker.compute_log_prob(batches.batch(rows, **data)).items())
    if worker.plan.separate:
        found |= dict(worker.compute_ablated_log_prob(batches.batch(rows, **data)).items())
    return {name: list(value.unbind()) for name, value in found.items() if torch.is_tensor(value) and value.is_nested}


def weights(overrides, fields, rows):
    """{method: (B, T) weights}, from jagged fields as the passes give them."""
    perception = parse(configuration(*overrides).perception)
    lengths = [row.response_length for row in rows]

    def padded(values):
        # verl's own fields run over whole sequences, a token ahead.
        own = [v if len(v) == n else v[len(v) - n - 1 : -1] for v, n in zip(values, lengths, strict=True)]
        return torch.nn.utils.rnn.pad_sequence(own, batch_first=True)

    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    signals = RolloutSignals(
        response_mask=mask,
        has_image=torch.tensor([bool(row.inputs) for row in rows]),
        group_ids=torch.arange(len(rows)) // 2,
        old_log_prob=padded(fields["log_probs"]),
        measured={signal: padded(fields[signal.field]) for signal in perception.signals},
        progress=0.4,
    )
    methods = [*perception.methods, *([] if overrides == VEPO else [VPPO()])]
    return method_weights(methods, signals)


@pytest.fixture(scope="module", params=[METHODS, VEPO], ids=["methods", "vepo"])
def overrides(request):
    return request.param


@pytest.fixture(scope="module")
def expected(overrides, rows):
    found = weights(overrides, fields_of(workers.build(*overrides), rows), rows)
    assert all(values.std() > 1e-3 for values in found.values())
    return found


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(
            found[name], expected[name], atol=ATOL, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize(
    ("more", "settings"),
    [
        ([PACKED], {}),
        ([CHECKPOINTING], {}),
        ([], {"micro_batch_size_per_gpu": 1}),
        ([PACKED], {"use_dynamic_bsz": True, "max_token_len_per_gpu": 160}),
    ],
    ids=["packed", "gradient checkpointing", "one row at a time", "packed, dynamic"],
)
def test_one_rank(overrides, rows, expected, more, settings):
    with workers.transformers_restored():
        found = fields_of(workers.build(*overrides, *more), rows, **settings)
    assert_same(weights(overrides, found, rows), expected)


@pytest.mark.parametrize("more", [[], [PACKED], [PACKED, ULYSSES]], ids=["padded", "packed", "split sequences"])
def test_two_ranks(overrides, rows, expected, tmp_path, more):
    passes = "compute_log_prob" if overrides == VEPO else "compute_log_prob,compute_ablated_log_prob"
    assert_same(weights(overrides, ranks.both(tmp_path, passes, *overrides, *more), rows), expected)


@pytest.mark.parametrize("more", [[], [PACKED], [PACKED, ULYSSES]], ids=["padded", "packed", "split sequences"])
def test_images_on_one_of_two_ranks(tmp_path, more):
    """The ranks' collectives stay in step, in every pass and in the update, and the results are those of one rank."""
    rows = batches.half_with_images(tiny.model(torch.float32))
    passes = "compute_log_prob,compute_ablated_log_prob,gradients"
    found = ranks.both(tmp_path, passes, *PAPO, *more, images="first half")
    with workers.transformers_restored():
        worker = workers.build(*PAPO, *(override for override in more if override != ULYSSES))
        gradients = workers.loss_and_gradients(worker, rows)[1]
        wanted = fields_of(worker, rows)
    for name, values in wanted.items():
        assert all(torch.allclose(*pair, atol=2e-5, rtol=0) for pair in zip(found[name], values, strict=True)), name
    largest = max(gradient.abs().max() for gradient in gradients.values())
    assert largest > 1e-3
    for name, gradient in gradients.items():
        assert torch.allclose(found[name][0], gradient, atol=1e-5 * largest, rtol=0), name
