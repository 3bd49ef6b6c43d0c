# SPDX-License-Identifier: Apache-2.0
"""Signals measured in and beside verl's old-log-prob pass: right, whatever verl does with the batch."""

from dataclasses import dataclass

import pytest
import torch
from support import batches, ranks, tiny, workers
from verl.utils import tensordict_utils as tu

from verl_ext.models.language_model import hooks
from verl_ext.signals import truncated_entropy, visual_similarity
from verl_ext.signals.full_vocabulary import logits_divergences

pytestmark = pytest.mark.usefixtures("process_group")

PASS = {"compute_loss": False, "calculate_entropy": True, "perception_step": 3, "perception_progress": 0.4}
EVERYTHING = [
    "+perception=pgpo",
    "perception.methods=[pgpo,vppo,pepo,vgpo]",
    "perception.pgpo.divergence=kl",
    "+perception.vppo.divergence=jsd",
    "+perception.vppo.view=noised",
    "+perception.views.noised.kind=gaussian_noise",
    "+perception.views.noised.sigma=0.5",
]
KL = ["+perception.pgpo.divergence=kl"]
SIGNALS = {
    "visual_similarity_cosine_all_pairwise_mean",
    "visual_similarity_cosine_last_prototype",
    "visual_kl",
    "visual_jsd_noised",
}
# Another split pads to other lengths, which changes the order of floating-point sums.
ATOL = 2e-5


def measured(worker, rows, **settings):
    """{signal: values of each row} of one clean pass."""
    output = worker.compute_log_prob(batches.batch(rows, **PASS, **settings))
    names = set(output.keys()) - {"log_probs", "entropy", "has_image", "metrics"}
    return {name: [values.clone() for values in output[name].unbind()] for name in names}


def close(a, b):
    assert a.keys() == b.keys()
    return all(torch.allclose(x, y, atol=ATOL, rtol=0) for name in a for x, y in zip(a[name], b[name], strict=True))


@dataclass
class Reference:
    """One row by transformers' own model: no verl, no packing, no padding, no hooks.

    `clean` and `blind` are logits at the positions that predict the response; in the blind run all attention to the
    image is masked.
    """

    row: tiny.Row
    hidden_states: tuple
    clean: torch.Tensor
    blind: torch.Tensor
    image: torch.Tensor

    def similarity(self, **how):
        length = len(self.row.input_ids)
        response = torch.arange(length - self.row.response_length, length)
        return visual_similarity(self.hidden_states, self.image[None], response[None], **how)[0]


@torch.no_grad()
def refer(row, model):
    given = {"input_ids": row.input_ids[None], "position_ids": row.position_ids[:, None], **row.inputs}
    image = row.input_ids == model.config.image_token_id
    length = len(image)
    # An image token may attend to itself, since a row of the mask without any opening has no softmax.
    blocked = (torch.ones(length, length).triu(1).bool() | image) & ~torch.eye(length, dtype=torch.bool)
    mask = torch.zeros(1, 1, length, length).masked_fill(blocked, -torch.inf)
    clean = model(**given, output_hidden_states=True, use_cache=False)
    blind = model(**given, attention_mask=mask, use_cache=False)
    logits = [output.logits[0, -row.response_length - 1 : -1] for output in (clean, blind)]
    return Reference(row, clean.hidden_states, *logits, image)


@pytest.fixture(scope="module")
def references(rows):
    """Before any worker is built: verl replaces parts of transformers for the whole process."""
    model = tiny.model(torch.float32)
    return [refer(row, model) for row in rows]


@pytest.fixture(scope="module")
def worker(references):
    return workers.build(*EVERYTHING)


@pytest.fixture(scope="module")
def expected(worker, rows):
    return measured(worker, rows)


def test_every_signal_is_there_once(expected, rows):
    assert set(expected) == SIGNALS
    for values in expected.values():
        assert [len(row) for row in values] == [row.response_length for row in rows]


def test_similarity_is_that_of_all_hidden_states(references, expected, worker):
    layers = worker.actor.model_config.hf_config.text_config.num_hidden_layers
    for index, reference in enumerate(references):
        assert len(reference.hidden_states) == layers + 1
        for name, how in {
            "visual_similarity_cosine_all_pairwise_mean": {},
            "visual_similarity_cosine_last_prototype": {"layers": "last", "pooling": "prototype"},
        }.items():
            wanted = reference.similarity(**how)
            torch.testing.assert_close(expected[name][index], wanted, atol=1e-5, rtol=0)
            assert wanted.std() > 1e-3


def test_the_divergence_is_that_of_the_full_distributions(references, expected):
    for index, reference in enumerate(references):
        wanted = logits_divergences(reference.clean, reference.blind).kl
        torch.testing.assert_close(expected["visual_kl"][index], wanted, atol=1e-4, rtol=1e-3)
    assert max(values.max() for values in expected["visual_kl"]) > 0.01
    assert all((values > 0).any() and (values <= 0.6931472).all() for values in expected["visual_jsd_noised"])


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_entropies_and_divergences_are_those_of_the_tempered_logits(references, rows, temperature):
    worker = workers.build("+perception=tor", "perception.tor.top_p=0.9", "perception.methods=[tor,pgpo]", *KL)
    data = batches.batch(rows, **PASS)
    tu.assign_non_tensor(data, temperature=temperature)
    output = worker.compute_log_prob(data)
    for index, reference in enumerate(references):
        wanted = truncated_entropy(reference.clean / temperature, 0.9)
        torch.testing.assert_close(output["entropy_top_p_0.9"][index], wanted, atol=1e-4, rtol=1e-3)
        wanted = logits_divergences(reference.clean / temperature, reference.blind / temperature).kl
        torch.testing.assert_close(output["visual_kl"][index], wanted, atol=1e-4, rtol=1e-3)


def test_row_order_changes_nothing(worker, rows, expected):
    order = [5, 2, 7, 0, 3, 6, 1, 4]
    shuffled = measured(worker, [rows[i] for i in order])
    assert close(shuffled, {name: [values[i] for i in order] for name, values in expected.items()})


@pytest.mark.parametrize(
    "split",
    [
        {"micro_batch_size_per_gpu": 1},
        {"micro_batch_size_per_gpu": 2},
        {"micro_batch_size_per_gpu": 8},
        {"use_dynamic_bsz": True, "max_token_len_per_gpu": 160},
    ],
    ids=["1", "2", "8", "dynamic"],
)
def test_the_split_into_micro_batches_changes_nothing(worker, rows, expected, split):
    assert close(measured(worker, rows, **split), expected)


def test_packed_and_padded_engines_agree(rows, expected):
    with workers.transformers_restored():
        packed = workers.build(*EVERYTHING, "actor_rollout_ref.model.use_remove_padding=True")
        result = measured(packed, rows, use_remove_padding=True)
    assert close(result, expected)


def test_two_ranks_give_what_one_gives(expected, tmp_path):
    both = ranks.both(tmp_path, "compute_log_prob", *EVERYTHING)
    assert close({name: both[name] for name in SIGNALS}, expected)


PACKED = "actor_rollout_ref.model.use_remove_padding=True"
ULYSSES = "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size=2"


SPLIT = [
    "+perception=tor",
    "perception.methods=[tor,pgpo,pepo,vgpo]",
    "+perception.pgpo.divergence=jsd",
    "+perception.pgpo.view=noised",
    "+perception.views.noised.kind=gaussian_noise",
    "+perception.views.noised.sigma=0.5",
]


@pytest.mark.parametrize("response_only", [True, False])
def test_sequences_split_over_two_ranks_give_what_one_gives(rows, tmp_path, response_only):
    whole = workers.build(*SPLIT, f"perception.response_only_logits={response_only}")
    for method in ("compute_log_prob", "compute_ablated_log_prob"):
        wanted = by_response(getattr(whole, method)(batches.batch(rows, **PASS)), rows)
        split = ranks.both(
            tmp_path, method, *SPLIT, PACKED, ULYSSES, f"perception.response_only_logits={response_only}"
        )
        assert set(wanted) >= (
            {"ablated_log_prob"} if "ablated" in method else {"entropy_top_p_0.95", "visual_jsd_noised"}
        )
        assert close(by_response(split, rows), wanted)


def by_response(output, rows):
    """{field: values of each response}; verl's own fields run over whole sequences, a token ahead."""
    fields = {name: list(value) for name, value in output.items() if name not in ("has_image", "metrics")}
    return {
        name: [
            value[len(value) - row.response_length - 1 : -1] if name in ("log_probs", "entropy") else value
            for value, row in zip(values, rows, strict=True)
        ]
        for name, values in fields.items()
    }


def test_measuring_does_not_change_verls_own_results(worker, rows):
    plain = {name: value for name, value in PASS.items() if not name.startswith("perception")}
    own = worker.compute_log_prob(batches.batch(rows, **plain))
    assert set(own.keys()) & SIGNALS == set()
    also = worker.compute_log_prob(batches.batch(rows, **PASS))
    for name in ("log_probs", "entropy"):
        assert torch.equal(own[name].values(), also[name].values())


def hooked(worker):
    """Modules that something of the passes still listens to."""
    passes = ("hidden_states", "clean_pass", "paired_views", "response_logits")
    return [
        name
        for name, module in worker.actor.engine.module.named_modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        if hook.__module__.endswith(passes)
    ]


def test_nothing_stays_on_the_model(worker, rows):
    engine = worker.actor.engine
    before = (engine.forward_step, engine.prepare_model_outputs)
    measured(worker, rows)
    assert hooked(worker) == []
    assert (engine.forward_step, engine.prepare_model_outputs) == before


def test_hooks_go_when_the_pass_fails(worker, rows):
    def fail(*_):
        raise ZeroDivisionError

    seen = []
    layer = worker.actor.engine.module.model.language_model.layers[1]
    failing = [layer.register_forward_hook(lambda *_: seen.extend(hooked(worker))), layer.register_forward_hook(fail)]
    with hooks(*failing), pytest.raises(ZeroDivisionError):
        worker.compute_log_prob(batches.batch(rows, **PASS))
    assert seen
    assert hooked(worker) == []
    test_nothing_stays_on_the_model(worker, rows)


def test_rows_without_an_image_have_no_similarity_and_no_divergence(rows):
    mixed = [*rows[:2], *batches.rows(tiny.model(torch.float32), images=False)[:2]]
    worker = workers.build(*EVERYTHING)
    got = measured(worker, mixed)
    for name, values in got.items():
        assert all((row == 0).all() for row in values[2:]) or name in ("visual_kl", "visual_jsd_noised"), name
        assert all(row.abs().max() < 1e-5 for row in values[2:]), name
        assert all(row.abs().max() > 1e-4 for row in values[:2]), name
    output = worker.compute_log_prob(batches.batch(mixed, **PASS))
    assert output["has_image"].tolist() == [True, True, False, False]


def test_a_paired_view_gives_the_log_probs_of_a_separate_one(rows):
    separate = workers.build("+perception=papo_g")
    data = batches.batch(rows, **{**PASS, "calculate_entropy": False})
    wanted = separate.compute_ablated_log_prob(data)["ablated_log_prob"].unbind()
    paired = workers.build("+perception=papo_g", "perception.methods=[papo,pgpo]", *KL)
    got = measured(paired, rows)
    assert set(got) == {"ablated_log_prob", "visual_kl"}
    assert close({"x": got["ablated_log_prob"]}, {"x": list(wanted)})
    assert paired.plan.separate == ()


BF16 = [
    "actor_rollout_ref.actor.fsdp_config.model_dtype=bf16",
    *(f"actor_rollout_ref.actor.fsdp_config.mixed_precision.{name}_dtype=bf16" for name in ("param", "reduce")),
]


def test_half_precision_agrees_with_single(rows, expected):
    """The engine computes in bf16; what is accumulated over layers and vocabulary is fp32."""
    half = workers.build(*EVERYTHING, *BF16)
    assert {parameter.dtype for parameter in half.actor.engine.module.parameters()} == {torch.bfloat16}
    got = measured(half, rows)
    for name, values in got.items():
        wanted = torch.cat(expected[name])
        assert torch.cat(values).dtype == torch.float32
        assert torch.corrcoef(torch.stack([torch.cat(values), wanted]))[0, 1] > 0.98, name
    means = torch.cat(got["visual_similarity_cosine_all_pairwise_mean"])
    torch.testing.assert_close(
        means, torch.cat(expected["visual_similarity_cosine_all_pairwise_mean"]), atol=0.01, rtol=0
    )


class TestLoRA:
    """An adapter on every linear layer but the head, as verl puts it; the reference is the actor without it."""

    LORA = ("actor_rollout_ref.model.lora_rank=4", "actor_rollout_ref.model.lora_alpha=8")

    @pytest.fixture(scope="class")
    @classmethod
    def lora(cls):
        return workers.build(*EVERYTHING, *cls.LORA)

    def test_a_fresh_adapter_changes_nothing(self, lora, rows, expected):
        assert any("lora_A" in name for name, _ in lora.actor.engine.module.named_parameters())
        assert close(measured(lora, rows), expected)

    def test_a_trained_adapter_changes_every_signal(self, lora, rows, expected):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in lora.actor.engine.module.named_parameters():
                if "lora_B" in name:
                    local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
                    local.copy_(0.05 * torch.randn(local.shape, generator=generator))
        got = measured(lora, rows)
        assert got.keys() == expected.keys()
        assert not any(close({name: got[name]}, {name: expected[name]}) for name in got)

    def test_the_reference_pass_measures_nothing(self, lora, rows):
        output = lora.compute_log_prob(batches.batch(rows, no_lora_adapter=True, **PASS))
        assert not set(output.keys()) & {*SIGNALS, "has_image"}
