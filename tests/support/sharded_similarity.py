# SPDX-License-Identifier: Apache-2.0
"""Known hidden states, cut as Megatron cuts them and measured by four ranks; run as `python -m ... OUT`.

The cut is enacted with Python lists, so that it shares nothing with the index arithmetic under test.
"""

import math
import random
import sys
from itertools import chain, pairwise
from pathlib import Path

import torch

from support import forked
from verl_ext.passes.megatron.grid import Axis, Grid
from verl_ext.passes.megatron.layer_sums import LayerSums, StageSimilarities
from verl_ext.signals.layer_similarity import SimilarityAccumulator
from verl_ext.signals.layout import TokenLayout
from verl_ext.signals.request import Similarity

WORLD = 4
GRIDS = {  # context, sequence and pipeline ranks; what is left is data parallelism
    "alone": (1, 1, 1),
    "cp2": (2, 1, 1),
    "sp2": (1, 2, 1),
    "pp2": (1, 1, 2),
    "cp2-sp2": (2, 2, 1),
    "cp2-pp2": (2, 1, 2),
    "sp2-pp2": (1, 2, 2),
    "cp4": (4, 1, 1),
    "sp4": (1, 4, 1),
    "pp4": (1, 1, 4),
}
CASES = 8
WIDTH = 6
SIGNALS = (Similarity(), Similarity(layers="last", pooling="prototype"), Similarity(score="dot"))


def grid(rank, context, sequence, pipeline):
    """This rank's grid, with the groups of all ranks created alike; neighbours are in one sequence group."""
    sizes = (WORLD // (context * sequence * pipeline), pipeline, context, sequence)
    numbers = torch.arange(WORLD).view(sizes)
    axes = []
    for dim in (2, 3, 1):
        groups = numbers.movedim(dim, -1).reshape(-1, sizes[dim]).tolist()
        created = [torch.distributed.new_group(group) for group in groups]
        mine = next(made for made, group in zip(created, groups, strict=True) if rank in group)
        axes.append(Axis(mine) if sizes[dim] > 1 else Axis())
    return Grid(*axes)


def sequences(rng):
    """(prompt length, response length, image positions in the prompt) of each row: short, odd, without images."""
    rows = []
    for _ in range(rng.randint(1, 4)):
        prompt, response = rng.choice([1, 2, 5, rng.randint(1, 17)]), rng.choice([0, 1, 3, rng.randint(0, 13)])
        images = sorted(rng.sample(range(prompt), rng.choice([0, prompt // 2, prompt])))
        rows.append((prompt, response, images))
    return rows


def layout(rows):
    """The tokens of `rows` by their numbers, laid end to end."""
    tokens, images, start = [], [], 0
    for row, (prompt, response, image) in enumerate(rows):
        tokens += [(start + prompt + t, row) for t in range(response)]
        images += [(start + i, row) for i in image]
        start += prompt + response
    columns = [
        torch.tensor([pair[k] for pair in pairs], dtype=torch.long) for pairs in (tokens, images) for k in (0, 1)
    ]
    return TokenLayout(*columns, rows=len(rows))


def padded_lengths(rows, packed, align, extra):
    """Of each row, to a multiple of `align`; all alike in a batch, and the last longer by `extra` in a pack."""
    own = [math.ceil((prompt + response) / align) * align for prompt, response, _ in rows]
    return [*own[:-1], own[-1] + extra] if packed else [max(own) + extra] * len(rows)


def zigzag(sequence, ranks, rank):
    """The two chunks of a list that context-parallel `rank` has."""
    if ranks == 1:
        return sequence
    size = len(sequence) // (2 * ranks)
    chunks = [sequence[i * size : (i + 1) * size] for i in range(2 * ranks)]
    return chunks[rank] + chunks[2 * ranks - 1 - rank]


def shard(state, rows, padded, packed, grid):
    """This rank's (places, columns, D) part of the (N, D) states of all tokens; padding is NaN."""
    lengths = [prompt + response for prompt, response, _ in rows]
    padding = torch.full((WIDTH,), math.nan)
    own = []
    for tokens, size in zip(state.split(lengths), padded, strict=True):
        whole = [*tokens, *[padding] * (size - len(tokens))]
        own.append(zigzag(whole, grid.context.size, grid.context.rank))
    columns = [list(chain(*own))] if packed else own
    length = len(columns[0]) // grid.sequence.size
    start = grid.sequence.rank * length
    return torch.stack([torch.stack(column[start : start + length]) for column in columns], dim=1)


def stages(count, pipeline, chunks):
    """For each pipeline rank, for each of its chunks, which of `count` states it computes."""
    bounds = [round(i * count / (pipeline * chunks)) for i in range(pipeline * chunks + 1)]
    parts = [list(range(a, b)) for a, b in pairwise(bounds)]
    return [[parts[chunk * pipeline + rank] for chunk in range(chunks)] for rank in range(pipeline)]


def largest_error(grid, rng, packed, chunks):
    """Between what ranks find in a pass of up to three micro-batches and one accumulator; and the number of tokens."""
    generator = torch.Generator().manual_seed(rng.randint(0, 10**6))
    count = rng.randint(grid.pipeline.size * chunks, 9)
    align = grid.sequence.size * grid.context.size * (2 if grid.context.size > 1 else 1)
    totals = [LayerSums(signal, grid) for signal in SIGNALS]
    expected = [[] for _ in SIGNALS]
    for _ in range(rng.randint(1, 3)):
        rows = sequences(rng)
        where = layout(rows)
        lengths = torch.tensor([prompt + response for prompt, response, _ in rows])
        offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        padded = padded_lengths(rows, packed, align, align * rng.randint(0, 2))
        states = [torch.randn(int(lengths.sum()), WIDTH, generator=generator) for _ in range(count)]
        for chunk, own in enumerate(stages(count, grid.pipeline.size, chunks)[grid.pipeline.rank]):
            measure = StageSimilarities(SIGNALS, where, offsets, grid)
            measure.seen.padded_offsets = torch.tensor([0, *padded]).cumsum(0).int() if packed else None
            for index in own:
                measure.add(shard(states[index], rows, padded, packed, grid), index == count - 1)
            for total, (sums, layers) in zip(totals, measure.results(), strict=True):
                total.add(chunk, sums, layers)
        for values, signal in zip(expected, SIGNALS, strict=True):
            whole = SimilarityAccumulator(where, signal.score, signal.layers, signal.pooling)
            for state in states:
                whole.add(state)
            values.append(whole.result())
    tokens = sum(map(len, expected[0]))
    found = zip([total.mean() for total in totals], map(torch.cat, expected), strict=True)
    return max([float((mean - values).abs().max()) if tokens else 0.0 for mean, values in found]), tokens


def main(rank):
    errors = {}
    for name, sizes in GRIDS.items():
        own = grid(rank, *sizes)
        for packed in (True, False):
            rng = random.Random(f"{name} {packed}")
            found = [largest_error(own, rng, packed, 1 + case % 2) for case in range(CASES)]
            errors[f"{name}-{'packed' if packed else 'padded'}"] = [max(e for e, _ in found), sum(n for _, n in found)]
    return errors


if __name__ == "__main__":
    sys.exit(0 if forked.run(main, WORLD, Path(sys.argv[1])) else 1)
