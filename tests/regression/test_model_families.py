# SPDX-License-Identifier: Apache-2.0
"""Every verified family, as a tiny random model: each pass against transformers' own model, one row at a time."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from support import batches, families, family_rows, ranks, tiny, workers
from transformers import AutoProcessor
from verl.utils import tensordict_utils as tu

from verl_ext.ablation import AblationSpec
from verl_ext.ablation.spec import KINDS
from verl_ext.errors import ConfigurationError
from verl_ext.models.available import family_of
from verl_ext.models.facts import model_facts
from verl_ext.models.language_model import decoder
from verl_ext.passes.ablated_batch import Ablation
from verl_ext.passes.row_inputs import row_inputs
from verl_ext.signals import truncated_entropy, visual_similarity
from verl_ext.signals.full_vocabulary import logits_divergences
from verl_ext.signals.request import MAIN_VIEW

pytestmark = pytest.mark.usefixtures("process_group")

QUICK = ("qwen3_vl",)
STEP, SEED = 3, 0
PASS = {"compute_loss": False, "calculate_entropy": True, "perception_step": STEP, "perception_progress": 0.4}
SIGNALS = [
    "+perception=pgpo",
    "perception.methods=[pgpo,vppo,pepo,vgpo]",
    "perception.pgpo.divergence=kl",
    "+perception.vppo.divergence=jsd",
    "+perception.vppo.view=noised",
    "+perception.views.noised.kind=gaussian_noise",
    "+perception.views.noised.sigma=0.5",
]
LOG_PROBS = ["+perception=pgpo"]
PACKED = "actor_rollout_ref.model.use_remove_padding=True"
ULYSSES = "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size=2"
LORA = ("actor_rollout_ref.model.lora_rank=4", "actor_rollout_ref.model.lora_alpha=8")


@dataclass
class Case:
    """A family's rows, with all that transformers says of them before verl replaces any of its parts."""

    name: str
    rows: list
    references: list
    ablated: dict
    noised: list

    @property
    def tolerance(self):
        return 1e-4 if family_of(self.name).hybrid else 1e-5

    def build(self, *overrides):
        # What verl replaces for packed sequences it would otherwise leave in place for padded ones.
        workers.restore_transformers()
        return workers.build(f"actor_rollout_ref.model.path={families.path(self.name)}", *overrides)


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in families.TINY],
)
def case(request, process_group):
    name = request.param
    with workers.transformers_restored():
        model = family_rows.load(name)
        rows = family_rows.rows(name, model)
        yield refer(name, model, rows)


def refer(name, model, rows):
    references = [family_rows.refer(row, model, family_of(name).hybrid) for row in rows]
    ablated = {kind: ablated_log_probs(AblationSpec(kind=kind), name, model, rows) for kind in KINDS[1:]}
    ablated["drop_vision"] = [log_probs(reference.blind, row) for reference, row in zip(references, rows, strict=True)]
    noised = ablated_rows(AblationSpec(kind="gaussian_noise", sigma=0.5), name, model, rows)
    return Case(name, rows, references, ablated, [family_rows.logits_of(model, row)[1] for row in noised])


def facts(name, model):
    processor = AutoProcessor.from_pretrained(families.path(name))
    return model_facts(
        SimpleNamespace(hf_config=model.config, processor=processor, tokenizer=processor.tokenizer, path=name)
    )


def ablated_rows(spec, name, model, rows):
    """The rows with other pixels or words."""
    ablation = Ablation(spec, facts(name, model), SEED)
    changed = []
    for row in rows:
        batch = ablation(batches.batch([row]), STEP, 0.4)
        (inputs,) = row_inputs(batch)
        changed.append(tiny.Row(batch["input_ids"].values(), row.position_ids, row.response_length, inputs))
    return changed


def log_probs(logits, row):
    response = row.input_ids[-row.response_length :]
    return logits.log_softmax(-1).gather(-1, response[:, None])[:, 0]


def ablated_log_probs(spec, name, model, rows):
    changed = ablated_rows(spec, name, model, rows)
    return [log_probs(family_rows.logits_of(model, row)[1], row) for row in changed]


def measured(worker, rows, **settings):
    """{field: values of each row} of one clean pass; verl's own fields run over whole sequences, a token ahead."""
    data = batches.batch(rows, **PASS, use_remove_padding=worker.actor.engine.use_remove_padding, **settings)
    output = worker.compute_log_prob(data)
    return {
        name: [
            values[len(values) - row.response_length - 1 : -1] if name in ("log_probs", "entropy") else values
            for values, row in zip(output[name].unbind(), rows, strict=True)
        ]
        for name in output.keys()  # noqa: SIM118  a TensorDict
        if name not in ("has_image", "metrics")
    }


def expected(case):
    """{field: values of each row} by transformers."""
    fields = {}
    for row, reference, noised in zip(case.rows, case.references, case.noised, strict=True):
        length = len(row.input_ids)
        response = torch.arange(length - row.response_length, length)[None]

        def similarity(*, reference=reference, response=response, **how):
            return visual_similarity(reference.hidden_states, reference.image[None], response, **how)[0]

        clean = reference.clean
        probabilities = clean.softmax(-1)
        one = {
            "log_probs": log_probs(clean, row),
            "entropy": -(probabilities * clean.log_softmax(-1)).sum(-1),
            "visual_similarity_cosine_all_pairwise_mean": similarity(),
            "visual_similarity_cosine_last_prototype": similarity(layers="last", pooling="prototype"),
            "visual_kl": logits_divergences(clean, reference.blind).kl,
            "visual_jsd_noised": logits_divergences(clean, noised).jsd,
        }
        for name, values in one.items():
            fields.setdefault(name, []).append(values)
    return fields


def assert_same(found, wanted, tolerance):
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        for index, (place, got, row) in enumerate(zip(family_rows.PROMPTS, found[name], values, strict=True)):
            text = f"{name} of row {index}, {place}: off by {(got - row).abs().max()}"
            assert torch.allclose(got, row, atol=tolerance, rtol=tolerance), text


def can_pack(case):
    return family_of(case.name).packing_needs is None


def test_references_tell_views_apart(case):
    """Otherwise nothing below shows anything."""
    for kind, values in case.ablated.items():
        for index, (row, reference, other) in enumerate(zip(case.rows, case.references, values, strict=True)):
            apart = (log_probs(reference.clean, row) - other).abs().max()
            assert (apart > 1e-3) == (bool(row.inputs) or kind == "shuffle_text"), (kind, index, apart)
    fields = expected(case)
    assert all(torch.cat(values).std() > 1e-3 for values in fields.values())


@pytest.mark.parametrize("response_only", [True, False], ids=["response logits", "all logits"])
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_the_clean_pass_and_its_signals(case, packed, response_only):
    if packed and not can_pack(case):
        pytest.skip("refused, see test_admission.py")
    overrides = [f"perception.response_only_logits={response_only}", *([PACKED] if packed else [])]
    worker = case.build(*SIGNALS, *overrides)
    assert_same(measured(worker, case.rows), expected(case), case.tolerance)
    found = measured(case.build("+perception=tor", "perception.tor.top_p=0.9", *overrides), case.rows)
    found = found["entropy_top_p_0.9"]
    wanted = [truncated_entropy(reference.clean, 0.9) for reference in case.references]
    assert_same({"entropy": found}, {"entropy": wanted}, 10 * case.tolerance)


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_every_ablation(case, packed):
    if packed and not can_pack(case):
        pytest.skip("refused, see test_admission.py")
    worker = case.build(*LOG_PROBS, *([PACKED] if packed else []))
    for kind in KINDS:
        worker.ablations = {MAIN_VIEW: Ablation(AblationSpec(kind=kind), worker.model_facts, SEED)}
        data = batches.batch(case.rows, **{**PASS, "calculate_entropy": False}, use_remove_padding=packed)
        found = list(worker.compute_ablated_log_prob(data)["ablated_log_prob"].unbind())
        assert_same({kind: found}, {kind: case.ablated[kind]}, case.tolerance)


@pytest.mark.parametrize("more", [[], [PACKED], [PACKED, ULYSSES]], ids=["padded", "packed", "split sequences"])
def test_images_on_one_of_two_ranks(case, more, tmp_path):
    """The ranks' collectives stay in step, in every pass and in the update."""
    if (more and not can_pack(case)) or (ULYSSES in more and not family_of(case.name).splits_sequences):
        pytest.skip("refused, see test_admission.py")
    path = f"actor_rollout_ref.model.path={families.path(case.name)}"
    passes = "compute_log_prob,gradients"
    found = ranks.both(tmp_path, passes, *SIGNALS, path, *more, images="first half", family=case.name)
    rows = family_rows.half_with_images(case.rows)
    worker = case.build(*SIGNALS, *more[:1])
    wanted = measured(worker, rows)
    for name, values in wanted.items():
        own = [
            value[len(value) - row.response_length - 1 : -1] if name in ("log_probs", "entropy") else value
            for value, row in zip(found[name], rows, strict=True)
        ]
        assert all(torch.allclose(*pair, atol=2e-5, rtol=0) for pair in zip(own, values, strict=True)), name
    gradients = workers.loss_and_gradients(worker, rows)[1]
    largest = max(gradient.abs().max() for gradient in gradients.values())
    assert largest > 1e-3
    for name, gradient in gradients.items():
        assert torch.allclose(found[name][0], gradient, atol=1e-5 * largest, rtol=0), name


def grouped(rows):
    """Each row, and its prompt with two other responses, one of them shorter."""
    found = []
    for row in rows:
        prompt, response = row.input_ids[: -row.response_length], row.input_ids[-row.response_length :]
        other = replace(row, input_ids=torch.cat([prompt, response.flip(0)]))
        short = replace(
            row,
            input_ids=torch.cat([prompt, response[1:]]),
            position_ids=row.position_ids[:, :-1],
            response_length=row.response_length - 1,
        )
        found += [row, other, short]
    return found


def positions_of_a_pass(worker, rows):
    counted = []
    norm = decoder(worker.actor.engine.module).norm
    handle = norm.register_forward_hook(lambda _norm, _given, states: counted.append(states.shape[:-1].numel()))
    measured(worker, rows, micro_batch_size_per_gpu=len(rows))
    handle.remove()
    return max(counted)


def test_shared_prompts(case):
    """What a pass measures, the ablated views, and gradients are those of rows apart."""
    if family_of(case.name).hybrid:
        with pytest.raises(ConfigurationError, match="linear attention, whose state may not branch off"):
            case.build(*SIGNALS, "perception.share_prompts=True")
        return
    rows = grouped(case.rows)
    found, computed = {}, []
    for share in (False, True):
        sharing = (PACKED, f"perception.share_prompts={share}")
        worker = case.build(*SIGNALS, *sharing)
        fields, update = (
            measured(worker, rows, micro_batch_size_per_gpu=len(rows)),
            workers.loss_and_gradients(worker, rows),
        )
        computed.append(positions_of_a_pass(worker, rows))
        worker = case.build(*LOG_PROBS, *sharing)
        for kind in KINDS:
            worker.ablations = {MAIN_VIEW: Ablation(AblationSpec(kind=kind), worker.model_facts, SEED)}
            data = batches.batch(rows, **{**PASS, "calculate_entropy": False}, use_dynamic_bsz=True)
            tu.assign_non_tensor(data, max_token_len_per_gpu=10_000)
            fields[kind] = list(worker.compute_ablated_log_prob(data)["ablated_log_prob"].unbind())
        found[share] = fields, update
    assert computed[1] < 0.7 * computed[0]
    assert found[True][0].keys() == found[False][0].keys()
    for name, values in found[False][0].items():
        for row, (apart, shared) in enumerate(zip(values, found[True][0][name], strict=True)):
            torch.testing.assert_close(shared, apart, atol=case.tolerance, rtol=0, msg=f"{name} of row {row}")
    (loss, gradients), (shared_loss, shared_gradients) = found[False][1], found[True][1]
    assert shared_loss == pytest.approx(loss, abs=1e-6)
    largest = max(gradient.abs().max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(shared_gradients[name], gradient, atol=1e-5 * largest, rtol=0, msg=name)


def test_a_trained_adapter(case):
    """Against transformers' model with the adapter's product added to its weights."""
    targets = family_of(case.name).adapter_targets
    limited = [f"actor_rollout_ref.model.target_modules=[{','.join(targets)}]"] if targets else []
    worker = case.build(*SIGNALS, *LORA, *limited)
    generator = torch.Generator().manual_seed(0)
    parameters = dict(worker.actor.engine.module.named_parameters())
    for name, parameter in parameters.items():
        if "lora_B" in name:
            parameter.data.to_local().copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    merged = {name: parameter.full_tensor().detach() for name, parameter in parameters.items() if "lora_" in name}
    assert merged
    found = measured(worker, case.rows)
    workers.restore_transformers()
    model = family_rows.load(case.name)
    add_adapter(model, merged, scale=8 / 4)
    assert_same(found, expected(refer(case.name, model, case.rows)), case.tolerance)


@torch.no_grad()
def add_adapter(model, adapter, scale):
    for name, a in adapter.items():
        if "lora_A" in name:
            module = name.removeprefix("base_model.model.").partition(".lora_A")[0]
            model.get_submodule(module).weight += scale * adapter[name.replace("lora_A", "lora_B")] @ a
