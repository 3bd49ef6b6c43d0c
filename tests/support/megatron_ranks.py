# SPDX-License-Identifier: Apache-2.0
"""Signals of verl's Megatron engine against Hugging Face's model, on four ranks; run as `python -m ... OUT`.

Needs Megatron-Core on the path. Each rank writes the largest error of everything that is compared, by case.
"""

import os

os.environ["VERL_PLATFORM"] = "cpu"

import sys
from pathlib import Path

import torch
from megatron.core import parallel_state
from torch.nested import nested_tensor_from_jagged
from verl.models.mcore.util import preprocess_bshd_engine, preprocess_thd_engine
from verl.workers.utils.padding import response_from_nested

from support import batches, forked, megatron_model, tiny
from verl_ext.ablation import AblationSpec, PatchFormat
from verl_ext.models.available import family_of
from verl_ext.models.facts import ModelFacts
from verl_ext.passes.ablated_batch import Ablation
from verl_ext.passes.ablated_view import AblatedView
from verl_ext.passes.engine_passes import passes_of
from verl_ext.passes.megatron.cut import cut_of
from verl_ext.passes.megatron.grid import grid_of
from verl_ext.passes.row_inputs import row_inputs
from verl_ext.passes.signals_by_pass import plan
from verl_ext.signals.entropy import truncated_entropy
from verl_ext.signals.request import Entropy, Similarity
from verl_ext.signals.similarity import visual_similarity

WORLD = 4
CASES = {
    "padded-tp2": {"tensor": 2},
    "padded-cp2": {"context": 2},
    "padded-sp2-pp2": {"tensor": 2, "sequence": True, "pipeline": 2},
    "padded-sp2-cp2": {"tensor": 2, "sequence": True, "context": 2},
    "padded-pp2-chunks2": {"pipeline": 2, "chunks": 2},
    "packed-sp2": {"tensor": 2, "sequence": True},
    "packed-pp4": {"pipeline": 4},
    "packed-sp2-cp2": {"tensor": 2, "sequence": True, "context": 2},
    "packed-cp2-pp2": {"context": 2, "pipeline": 2},
}
SIGNALS = (Similarity(), Similarity(layers="last", pooling="prototype"))
TRUNCATED = Entropy(top_p=0.9)
PLAN = plan([*SIGNALS, TRUNCATED])
SETTINGS = {"compute_loss": False, "calculate_entropy": True}
FIXED = {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 2}
DYNAMIC = {"use_dynamic_bsz": True, "max_token_len_per_gpu": 160}
FACTS = ModelFacts(family_of("qwen2_5_vl"), 6, 7, PatchFormat((0.5,) * 3, (0.5,) * 3, 2, 2))
VIEWS = {
    kind: AblatedView(Ablation(AblationSpec(kind=kind), FACTS, seed=5), step=3, progress=0.4)
    for kind in ("drop_vision", "random_patch")
}


class Reference:
    """What Hugging Face's model says, row by row, each alone."""

    def __init__(self, hf, packed):
        self.hf, self.packed = hf, packed
        self.rows = batches.rows(hf)
        if packed:
            for row in self.rows:
                row.inputs, row.position_ids = {}, torch.arange(len(row.input_ids)).expand(4, -1)

    def clean(self):
        return [self._states(row.input_ids, row.position_ids, row.inputs) for row in self.rows]

    def ablated(self, view):
        batch = view.of(self.batch())
        columns = batch["input_ids"].offsets().diff().tolist()
        ids, positions = batch["input_ids"].values().split(columns), batch["position_ids"].values().split(columns, 1)
        states = map(self._states, ids, positions, row_inputs(batch))
        return self.log_probs([last for *_, last in states], ids)

    def batch(self, **settings):
        return batches.batch(self.rows, **{**SETTINGS, **FIXED, **settings, "use_remove_padding": self.packed})

    def similarity(self, signal, states):
        found = []
        for row, layers in zip(self.rows, states, strict=True):
            image = (row.input_ids == FACTS.image_token_id)[None]
            image[:, -row.response_length :] = False
            where = torch.arange(len(row.input_ids))[None, -row.response_length :]
            kept = layers if signal.layers == "all" else layers[-1:]
            found.append(visual_similarity(kept, image, where, score=signal.score, pooling=signal.pooling)[0])
        return torch.cat(found)

    def logits(self, last):
        rows = zip(self.rows, last, strict=True)
        return torch.cat([self.hf.lm_head(states[0, -row.response_length - 1 : -1]) for row, states in rows])

    def log_probs(self, last, ids):
        own = torch.cat([row_ids[-row.response_length :] for row, row_ids in zip(self.rows, ids, strict=True)])
        return self.logits(last).log_softmax(-1).gather(1, own[:, None])[:, 0]

    def _states(self, ids, positions, inputs):
        text = self.hf.model.language_model
        embeddings = text.embed_tokens(ids)[None]
        if inputs:
            features = self.hf.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"]).pooler_output
            mask = (ids == FACTS.image_token_id)[None, :, None].expand_as(embeddings)
            embeddings = embeddings.masked_scatter(mask, torch.cat(list(features)))
        return text(
            inputs_embeds=embeddings, position_ids=positions[-3:, None], output_hidden_states=True
        ).hidden_states


def responses(output, name, batch):
    return response_from_nested(output["model_output"][name], batch["response_mask"]).values()


def error(found, expected):
    return float((found.double() - expected.double()).abs().max()) if found.shape == expected.shape else 1e9


def compared(engine, reference, states, *splits):
    """{what: largest error}; empty on ranks whose results verl does not collect."""
    errors = {}
    for settings in splits:
        split = "dynamic" if settings["use_dynamic_bsz"] else "fixed"
        batch = reference.batch(**settings)
        with passes_of(engine).measuring(engine, PLAN, {}, FACTS.vision_token_ids):
            output = engine.infer_batch(reference.batch(**settings))
        if not engine.is_mp_src_rank_with_outputs():
            continue
        last = [final for *_, final in states]
        expected = reference.log_probs(last, [row.input_ids for row in reference.rows])
        errors[f"log_probs-{split}"] = error(responses(output, "log_probs", batch), expected)
        for signal in SIGNALS:
            values = output["model_output"][signal.field].values()
            errors[f"{signal.field}-{split}"] = error(values, reference.similarity(signal, states))
        entropies = truncated_entropy(reference.logits(last), TRUNCATED.top_p)
        errors[f"{TRUNCATED.field}-{split}"] = error(output["model_output"][TRUNCATED.field].values(), entropies)
    return errors


def ablated(engine, reference):
    """{view: largest error of its log-probabilities}, and how often the vision tower ran in the blind one."""
    errors = {}
    for kind, view in VIEWS.items():
        runs = tower_runs(engine)
        with passes_of(engine).running(engine, view):
            output = engine.infer_batch(reference.batch(calculate_entropy=False))
        if kind == "drop_vision":
            errors["blind tower runs"] = tower_runs(engine) - runs
        if engine.is_mp_src_rank_with_outputs():
            errors[kind] = error(responses(output, "log_probs", reference.batch()), reference.ablated(view))
    return errors


def tower_runs(engine):
    return sum(model.tower_runs for model in engine.module)


def short_against_full(engine, reference):
    """Make the engine compute logits of responses alone, and compare with what it did before."""
    before, loss, gradients, all_rows = trained(engine, reference)
    passes_of(engine).prepare(engine, None, PLAN)
    after, short_loss, short_gradients, rows = trained(engine, reference)
    errors = {
        "short gradient": max(error(short_gradients[name], gradients[name]) for name in gradients),
        "short loss": max([abs(a - b) for a, b in zip(loss, short_loss, strict=True)], default=0.0),
        "largest gradient": max(float(value.abs().max()) for value in gradients.values()),
    }
    if all_rows:
        errors["share of logits"] = rows / all_rows
    if engine.is_mp_src_rank_with_outputs():
        batch = reference.batch()
        for name in ("log_probs", "entropy"):
            errors[f"short {name}"] = error(responses(after, name, batch), responses(before, name, batch))
    return errors


def trained(engine, reference):
    """Results, losses and gradients of a pass forward and backward over the rows, and for how many positions logits."""

    def loss_function(model_output, data, dp_group):
        log_probs = response_from_nested(model_output["log_probs"], data["response_mask"]).values()
        entropy = response_from_nested(model_output["entropy"], data["response_mask"]).values()
        return (log_probs * torch.linspace(0.5, 1.5, len(log_probs))).sum() + entropy.sum(), {}

    model = torch.nn.ModuleList(engine.module)
    model.zero_grad()
    seen = []
    last = engine.module[-1]
    head = getattr(getattr(last, "language_model", last), "output_layer", None)
    handle = head and head.register_forward_hook(lambda _head, _args, output: seen.append(output[0].shape[:2].numel()))
    output = engine.infer_batch(reference.batch())
    losses = engine.forward_backward_batch(reference.batch(), loss_function, forward_only=False)
    if handle:
        handle.remove()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return output, losses.get("loss", []), gradients, sum(seen)


def misplaced(grid, packed, seed=0):
    """Number of tokens that do not stand where verl's own preparation puts them, over random lengths."""
    generator = torch.Generator().manual_seed(seed)
    wrong = 0
    for _ in range(20):
        lengths = torch.randint(1, 40, (int(torch.randint(1, 5, (1,), generator=generator)),), generator=generator)
        offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        ids = nested_tensor_from_jagged(torch.arange(1, int(offsets[-1]) + 1), offsets)
        if packed:
            bucket = [None, 64][int(torch.randint(0, 2, (1,), generator=generator))]
            whole, pack, _ = preprocess_thd_engine(ids, pad_to_length_bucket=bucket)
            padded_offsets = pack.cu_seqlens_q_padded
        else:
            (whole, _, _), padded_offsets = preprocess_bshd_engine(ids), None
        places, columns = whole.shape[1] // grid.sequence.size, whole.shape[0]
        cut = cut_of(offsets, torch.Size([places, columns, 1]), padded_offsets, grid)
        own = (cut.context == grid.context.rank).nonzero().flatten()
        wrong += int((whole.flatten()[cut.label[own]] != own + 1).sum()) + int((whole > 0).sum()) - len(own)
    return wrong


def own_methods(engine):
    return {name: value for name, value in vars(engine).items() if callable(value)}


def run_case(name, sizes, references):
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=sizes.get("tensor", 1),
        pipeline_model_parallel_size=sizes.get("pipeline", 1),
        virtual_pipeline_model_parallel_size=sizes.get("chunks"),
        context_parallel_size=sizes.get("context", 1),
    )
    packed = name.startswith("packed")
    reference, states = references[packed]
    engine = megatron_model.engine(reference.hf, packed=packed, **sizes)
    passes_of(engine).prepare(engine, False, PLAN)
    before = own_methods(engine)
    errors = compared(engine, reference, states, FIXED, DYNAMIC)
    blind = {} if packed else ablated(engine, reference)
    errors["methods left"] = float(own_methods(engine) != before)
    errors["misplaced"] = misplaced(grid_of(sizes.get("sequence", False)), packed)
    errors.update(blind | short_against_full(engine, reference))
    again = compared(engine, reference, states, FIXED) | ({} if packed else ablated(engine, reference))
    errors.update({f"{what}, short": value for what, value in again.items()})
    parallel_state.destroy_model_parallel()
    return errors


def main(rank, references):
    megatron_model.on_the_cpu()
    only = os.environ.get("MEGATRON_CASES", "").split()
    return {name: run_case(name, sizes, references) for name, sizes in CASES.items() if not only or name in only}


@torch.no_grad()
def all_references():
    torch.set_num_threads(1)
    hf = tiny.model(torch.float32)
    made = {packed: Reference(hf, packed) for packed in (False, True)}
    return {packed: (reference, reference.clean()) for packed, reference in made.items()}


if __name__ == "__main__":
    found = all_references()
    sys.exit(0 if forked.run(lambda rank: main(rank, found), WORLD, Path(sys.argv[1])) else 1)
