# SPDX-License-Identifier: Apache-2.0
"""Properties of the similarity to the image tokens."""

import gc
import itertools
import math
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.operations import CountOperations

from verl_ext.signals import SimilarityAccumulator, TokenLayout, visual_similarity
from verl_ext.signals import layer_similarity as module

SCORES = ["cosine", "dot", "l2", "l1"]
LAYERS = ["all", "last"]
POOLINGS = ["pairwise_mean", "prototype"]
SETTINGS = [
    {"score": score, "layers": layers, "pooling": pooling}
    for score, layers, pooling in itertools.product(SCORES, LAYERS, POOLINGS)
]
WITHOUT_PAIRS = [s for s in SETTINGS if s["score"] in ("cosine", "dot") or s["pooling"] == "prototype"]


def named(setting):
    return "-".join(setting.values())


def score_of(h, v, score, norm_floor):
    """One number for two vectors, as the formulas read."""
    if score == "cosine":
        return float((h @ v) / (h.norm().clamp(min=norm_floor) * v.norm().clamp(min=norm_floor)))
    if score == "dot":
        return float(h @ v)
    if score == "l2":
        return -math.sqrt(float((h - v).square().sum()) + 1e-6)
    return -float((h - v).abs().sum())


def reference(hidden_states, image_mask, response_positions, score="cosine", layers="all", pooling="pairwise_mean"):
    """(B, T) float64: every token with every image token of its row, in every layer."""
    used = [hidden.double() for hidden in hidden_states]
    used = used if layers == "all" else used[-1:]
    result = torch.zeros(response_positions.shape, dtype=torch.float64)
    for b, t in itertools.product(*map(range, response_positions.shape)):
        position, images = int(response_positions[b, t]), image_mask[b].nonzero().flatten().tolist()
        if position < 0 or not images:
            continue
        values = []
        for hidden in used:
            h, v = hidden[b, position], [hidden[b, i] for i in images]
            if pooling == "prototype":
                values.append(score_of(h, sum(v) / len(v), score, 1e-8))
            else:
                values.append(sum(score_of(h, x, score, 1e-12) for x in v) / len(v))
        result[b, t] = sum(values) / len(values)
    return result


def batch(seed=0, rows=3, length=11, columns=5, width=6, depth=3, dtype=torch.float64):
    """Layers, image mask and positions: two images in row 0, padded columns, the last row without an image."""
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.randn(rows, length, width, generator=generator, dtype=torch.float64) + 0.3 for _ in range(depth)]
    image_mask = torch.rand(rows, length, generator=generator) < 0.5
    image_mask[:, length - columns :] = False
    image_mask[0, [1, 2, 4, 5]], image_mask[0, [0, 3]] = True, False
    image_mask[-1] = False
    positions = torch.arange(length - columns, length).repeat(rows, 1)
    positions = positions.masked_fill(torch.rand(rows, columns, generator=generator) < 0.25, -1)
    return [layer.to(dtype) for layer in layers], image_mask, positions


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
@pytest.mark.parametrize("seed", [0, 1])
def test_matches_all_pairs_in_all_layers(setting, seed):
    layers, image_mask, positions = batch(seed)
    ours = visual_similarity(layers, image_mask, positions, **setting)
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours, reference(layers, image_mask, positions, **setting), atol=1e-12, rtol=1e-12)


@settings(max_examples=60)
@given(
    setting=st.sampled_from(SETTINGS),
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 4),
    columns=st.integers(1, 5),
    width=st.integers(1, 7),
    depth=st.integers(1, 3),
)
def test_matches_in_any_shape(setting, seed, rows, columns, width, depth):
    layers, image_mask, positions = batch(
        seed, rows=rows, columns=columns, length=columns + 6, width=width, depth=depth
    )
    ours = visual_similarity(layers, image_mask, positions, **setting)
    torch.testing.assert_close(ours, reference(layers, image_mask, positions, **setting), atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_blocks_do_not_matter(setting, monkeypatch):
    layers, image_mask, positions = batch()
    whole = visual_similarity(layers, image_mask, positions, **setting)
    monkeypatch.setattr(module, "BLOCK_NUMEL", 2 * layers[0].shape[-1])
    monkeypatch.setattr(module, "CPU_BLOCK_NUMEL", 2 * layers[0].shape[-1])
    torch.testing.assert_close(visual_similarity(layers, image_mask, positions, **setting), whole)


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_states_are_accumulated_in_float32(setting, dtype):
    layers, image_mask, positions = batch(width=64, depth=8, dtype=dtype)
    ours = visual_similarity(layers, image_mask, positions, **setting)
    assert ours.dtype == torch.float32
    expected = reference(layers, image_mask, positions, **setting)
    torch.testing.assert_close(ours.double(), expected, atol=2e-6, rtol=2e-6)


def test_one_float64_layer_makes_the_result_float64():
    layers, image_mask, positions = batch(depth=2)
    mixed = [layers[0].float(), layers[1]]
    ours = visual_similarity(mixed, image_mask, positions)
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours, reference(mixed, image_mask, positions), atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_autocast_takes_no_precision_away(setting):
    layers, image_mask, positions = batch(dtype=torch.float32)
    plain = visual_similarity(layers, image_mask, positions, **setting)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(visual_similarity(layers, image_mask, positions, **setting), plain)


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_packed_and_padded_batches_agree(setting):
    layers, image_mask, positions = batch()
    rows, length = image_mask.shape
    lengths = torch.tensor([length, length - 2, length - 4])
    positions = positions.masked_fill(positions >= lengths[:, None], -1)
    flat = torch.arange(rows * length).view(rows, length)
    real = torch.arange(length) < lengths[:, None]
    new_place = (real.flatten().cumsum(0) - 1).view(rows, length)
    has_token, row = positions >= 0, torch.arange(rows)[:, None]
    padded_index = (row * length + positions)[has_token]
    expected = visual_similarity(layers, image_mask, positions, **setting)[has_token]
    for index, batches in (
        (flat, layers),
        (new_place, [layer[real][None] for layer in layers]),
    ):
        layout = TokenLayout(
            tokens=index.flatten()[padded_index],
            token_rows=row.expand_as(positions)[has_token],
            images=index[image_mask],
            image_rows=row.expand_as(image_mask)[image_mask],
            rows=rows,
        )
        accumulator = SimilarityAccumulator(layout, **setting)
        for hidden in batches if setting["layers"] == "all" else batches[-1:]:
            accumulator.add(hidden)
        torch.testing.assert_close(accumulator.result(), expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_order_of_a_layout_is_free(setting):
    layers, image_mask, positions = batch()
    expected = visual_similarity(layers, image_mask, positions, **setting)
    rows, length = image_mask.shape
    row = torch.arange(rows)[:, None]
    tokens, token_rows = (row * length + positions)[positions >= 0], row.expand_as(positions)[positions >= 0]
    images, image_rows = (row * length + torch.arange(length))[image_mask], row.expand_as(image_mask)[image_mask]
    shuffled, shuffled_images = torch.randperm(len(tokens)), torch.randperm(len(images))
    layout = TokenLayout(
        tokens[shuffled], token_rows[shuffled], images[shuffled_images], image_rows[shuffled_images], rows
    )
    accumulator = SimilarityAccumulator(layout, **setting)
    for hidden in layers:
        accumulator.add(hidden)
    torch.testing.assert_close(accumulator.result(), expected[positions >= 0][shuffled], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_permuting_rows_permutes_the_result(setting):
    layers, image_mask, positions = batch(rows=4)
    order = torch.tensor([2, 0, 3, 1])
    ours = visual_similarity([layer[order] for layer in layers], image_mask[order], positions[order], **setting)
    expected = visual_similarity(layers, image_mask, positions, **setting)[order]
    torch.testing.assert_close(ours, expected, atol=1e-13, rtol=1e-13)


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_splitting_a_batch_changes_nothing(setting):
    layers, image_mask, positions = batch(rows=4)
    parts = [
        visual_similarity([layer[part] for layer in layers], image_mask[part], positions[part], **setting)
        for part in (slice(0, 1), slice(1, 4))
    ]
    expected = visual_similarity(layers, image_mask, positions, **setting)
    torch.testing.assert_close(torch.cat(parts), expected, atol=1e-13, rtol=1e-13)


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
@pytest.mark.parametrize("garbage", [math.nan, math.inf])
def test_unused_positions_may_hold_anything(setting, garbage):
    layers, image_mask, positions = batch()
    expected = visual_similarity(layers, image_mask, positions, **setting)
    used = image_mask.clone()
    for row, position in enumerate(positions):
        used[row, position[position >= 0]] = True
    dirty = [layer.masked_fill(~used[..., None], garbage) for layer in layers]
    assert torch.equal(visual_similarity(dirty, image_mask, positions, **setting), expected)


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_broken_states_reach_their_own_row_only(setting):
    layers, image_mask, positions = batch(rows=4)
    expected = visual_similarity(layers, image_mask, positions, **setting)
    layers = [layer.clone() for layer in layers]
    layers[-1][0, image_mask[0]] = math.nan
    ours = visual_similarity(layers, image_mask, positions, **setting)
    assert ours[0][positions[0] >= 0].isnan().all()
    assert torch.equal(ours[1:], expected[1:])


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_zero_where_padded_and_without_an_image(setting):
    layers, image_mask, positions = batch()
    ours = visual_similarity(layers, image_mask, positions, **setting)
    nothing = (positions < 0) | ~image_mask.any(-1, keepdim=True)
    assert nothing.any()
    assert torch.equal(ours[nothing], torch.zeros_like(ours[nothing]))
    assert (ours[~nothing] != 0.0).all()
    no_image = visual_similarity(layers, torch.zeros_like(image_mask), positions, **setting)
    assert torch.equal(no_image, torch.zeros_like(ours))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_zero_vectors_score_zero(pooling):
    layers, image_mask, positions = batch()
    zero_tokens = [layer.clone() for layer in layers]
    zero_images = [layer.clone() for layer in layers]
    for tokens, images in zip(zero_tokens, zero_images, strict=True):
        tokens[0, positions[0, positions[0] >= 0]] = 0.0
        images[0, image_mask[0]] = 0.0
    for states in (zero_tokens, zero_images):
        assert torch.equal(
            visual_similarity(states, image_mask, positions, pooling=pooling)[0], torch.zeros(5, dtype=torch.float64)
        )
    one_zero = [layer.clone() for layer in layers]
    for states in one_zero:
        states[0, 1] = 0.0
    torch.testing.assert_close(
        visual_similarity(one_zero, image_mask, positions, pooling=pooling),
        reference(one_zero, image_mask, positions, pooling=pooling),
    )


def test_cosine_of_a_token_with_itself_is_one():
    hidden = torch.randn(1, 1, 8).repeat(2, 4, 1)
    image_mask = torch.tensor([[True, True, False, False]]).repeat(2, 1)
    positions = torch.tensor([[2, 3], [3, -1]])
    for pooling in POOLINGS:
        ours = visual_similarity([hidden], image_mask, positions, pooling=pooling)
        torch.testing.assert_close(ours, torch.tensor([[1.0, 1.0], [1.0, 0.0]]))


def test_l2_keeps_the_digits_of_small_distances_between_large_states():
    hidden = torch.full((1, 2, 4), 1000.0)
    hidden[0, 1] += 0.0625
    ours = visual_similarity([hidden], torch.tensor([[True, False]]), torch.tensor([[1]]), score="l2")
    torch.testing.assert_close(ours, torch.tensor([[-math.sqrt(4 * 0.0625**2 + 1e-6)]]))


class Layers:
    """Yields layers whose memory can be watched, and looks at what is alive whenever the next is asked for."""

    def __init__(self, layers):
        self.layers, self.alive, self.references = layers, [], []

    def __iter__(self):
        for layer in self.layers:
            memory = layer.numpy().copy()
            self.references.append(weakref.ref(memory))
            hidden = torch.from_numpy(memory)
            del memory
            yield hidden
            del hidden
            self.alive.append(sum(reference() is not None for reference in self.references))


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_layers_are_consumed_one_at_a_time(setting):
    layers, image_mask, positions = batch(depth=5)
    watched = Layers(layers)
    ours = visual_similarity(watched, image_mask, positions, **setting)
    torch.testing.assert_close(ours, reference(layers, image_mask, positions, **setting))
    assert watched.alive == [0 if setting["layers"] == "all" else 1] * 5
    assert not any(reference() is not None for reference in watched.references)


def live_tensors_of_width(width):
    gc.collect()
    return sum(1 for o in gc.get_objects() if type(o) is torch.Tensor and o.ndim and o.shape[-1] == width)


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_accumulator_keeps_no_vectors(setting):
    width = 37
    layers, image_mask, _ = batch(width=width, dtype=torch.float32)
    layout = TokenLayout(
        tokens=torch.arange(7, 11),
        token_rows=torch.zeros(4, dtype=torch.long),
        images=image_mask[0].nonzero().flatten(),
        image_rows=torch.zeros(int(image_mask[0].sum()), dtype=torch.long),
        rows=1,
    )
    before = live_tensors_of_width(width)
    accumulator = SimilarityAccumulator(layout, **setting)
    for hidden in layers:
        accumulator.add(hidden)
    assert live_tensors_of_width(width) == before
    assert accumulator.result().shape == (4,)


@pytest.mark.parametrize("setting", WITHOUT_PAIRS, ids=named)
def test_never_reads_a_value_on_the_host(setting):
    layers = [torch.zeros(2, 6, 4, device="meta") for _ in range(2)]
    image_mask = torch.zeros(2, 6, dtype=torch.bool, device="meta")
    positions = torch.zeros(2, 3, dtype=torch.long, device="meta")
    assert visual_similarity(layers, image_mask, positions, **setting).shape == (2, 3)


@pytest.mark.parametrize("setting", WITHOUT_PAIRS, ids=named)
def test_loops_over_neither_rows_nor_tokens(setting):
    counts = []
    for rows, length in ((2, 12), (16, 40)):
        layers, image_mask, positions = batch(rows=rows, length=length)
        with CountOperations() as operations:
            visual_similarity(layers, image_mask, positions, **setting)
        counts.append(operations.count)
    assert counts[0] == counts[1]


def test_is_detached_and_leaves_its_inputs_alone():
    layers, image_mask, positions = batch()
    layers = [layer.requires_grad_() for layer in layers]
    copies = [layer.detach().clone() for layer in layers], image_mask.clone(), positions.clone()
    for setting in SETTINGS:
        ours = visual_similarity(layers, image_mask, positions, **setting)
        assert not ours.requires_grad
        assert ours.grad_fn is None
    for layer, copy in zip(layers, copies[0], strict=True):
        assert torch.equal(layer, copy)
    assert torch.equal(image_mask, copies[1])
    assert torch.equal(positions, copies[2])


def test_masks_and_positions_of_other_dtypes():
    layers, image_mask, positions = batch()
    expected = visual_similarity(layers, image_mask, positions)
    for dtype in (torch.uint8, torch.int64, torch.float32):
        assert torch.equal(visual_similarity(layers, image_mask.to(dtype), positions), expected)
    assert torch.equal(visual_similarity(layers, image_mask, positions.to(torch.int32)), expected)


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_nothing_to_measure(setting):
    layers, image_mask, positions = batch()
    assert visual_similarity(layers, image_mask, positions[:, :0], **setting).shape == (3, 0)
    empty = visual_similarity([layer[:0] for layer in layers], image_mask[:0], positions[:0], **setting)
    assert empty.shape == (0, 5)


def test_last_of_an_accumulator_is_the_latest():
    layers, _, _ = batch()
    tokens = torch.arange(6, 11)
    layout = TokenLayout(tokens, torch.zeros_like(tokens), torch.arange(1, 4), torch.zeros(3, dtype=torch.long), 1)
    accumulator, only = SimilarityAccumulator(layout, layers="last"), SimilarityAccumulator(layout, layers="last")
    for hidden in layers:
        accumulator.add(hidden)
    only.add(layers[-1])
    assert torch.equal(accumulator.result(), only.result())


@pytest.mark.parametrize(("name", "value"), [("score", "angle"), ("layers", "first"), ("pooling", "max")])
def test_rejects_unknown_names(name, value):
    layers, image_mask, positions = batch()
    with pytest.raises(ValueError, match=rf"^{name} is '{value}'"):
        visual_similarity(layers, image_mask, positions, **{name: value})


def test_rejects_wrong_batches():
    layers, image_mask, positions = batch()
    with pytest.raises(ValueError, match=r"^image_mask has shape \(3, 11, 1\)"):
        visual_similarity(layers, image_mask[..., None], positions)
    with pytest.raises(ValueError, match=r"^response_positions has shape \(2, 5\)"):
        visual_similarity(layers, image_mask, positions[:2])
    for dtype in (torch.float32, torch.bool):
        with pytest.raises(ValueError, match=rf"^response_positions has shape \(3, 5\) and dtype {dtype}"):
            visual_similarity(layers, image_mask, positions.to(dtype))
    with pytest.raises(ValueError, match=r"^response_positions holds 11; .* L = 11"):
        visual_similarity(layers, image_mask, positions.masked_fill(positions == 10, 11))
    with pytest.raises(ValueError, match=r"^hidden_states has a layer of shape \(11, 6\)"):
        visual_similarity(layers[0], image_mask, positions)
    with pytest.raises(ValueError, match=r"^hidden_states has a layer of shape \(3, 10, 6\)"):
        visual_similarity([layers[0], layers[1][:, :10]], image_mask, positions)
    with pytest.raises(ValueError, match=r"^hidden has shape \(3, 11, 6\) and dtype torch.int64"):
        visual_similarity([layers[0].long()], image_mask, positions)
    for chosen in LAYERS:
        with pytest.raises(ValueError, match=r"^hidden_states is empty"):
            visual_similarity(iter(()), image_mask, positions, layers=chosen)


def test_rejects_wrong_layouts():
    index = torch.arange(3)
    fields = {"tokens": index, "token_rows": index, "images": index, "image_rows": index, "rows": 3}
    for name in ("tokens", "token_rows", "images", "image_rows"):
        with pytest.raises(ValueError, match=rf"^{name} has shape \(3,\) and dtype torch.int32"):
            TokenLayout(**{**fields, name: index.int()})
        with pytest.raises(ValueError, match=rf"^{name} has shape \(1, 3\)"):
            TokenLayout(**{**fields, name: index[None]})
    for name in ("token_rows", "image_rows"):
        with pytest.raises(ValueError, match=rf"^{name} has 2 entries"):
            TokenLayout(**{**fields, name: index[:2]})
    with pytest.raises(ValueError, match=r"^rows is -1"):
        TokenLayout(**{**fields, "rows": -1})
    with pytest.raises(ValueError, match=r"^hidden has shape \(6,\)"):
        SimilarityAccumulator(TokenLayout(**fields)).add(torch.zeros(6))


def test_layers_may_come_stacked():
    layers, image_mask, positions = batch()
    stack = torch.stack(layers)
    torch.testing.assert_close(
        visual_similarity(stack, image_mask, positions), reference(layers, image_mask, positions)
    )
