# SPDX-License-Identifier: Apache-2.0
"""What a run that was killed and resumed must look like at its end."""

import json

import pyarrow.parquet as pq

from verl_ext.report.metrics_file import read_steps, with_earlier

STEPS = 4
OVERRIDES = [
    "+perception=pgpo",
    "recipe=grpo",
    # Masks that differ from step to step.
    "perception.ablation.kind=random_patch",
    "perception.record_every=1",
    "perception.record_rows=16",
    "actor_rollout_ref.actor.optim.lr_scheduler_type=cosine",
    "trainer.save_freq=1",
    # One epoch: each row is used in exactly one step.
    f"data.train_max_samples={4 * STEPS}",
]


def last_words(run):
    """The last line that the command printed of its own."""
    return [line for line in run.output.splitlines() if line.startswith("verl-ext: ")][-1]


def steps_by_attempt(folder):
    """The steps that each attempt logged."""
    return [[step for step, _ in read_steps([path])] for path in with_earlier(folder / "metrics.jsonl")]


def metrics(folder):
    """{step: metrics} over all attempts."""
    return dict(read_steps(with_earlier(folder / "metrics.jsonl")))


def prompts(folder, step):
    """Which rows of the data a step trained on."""
    path = folder / "checkpoints" / "perception_tokens" / f"step_{step:06d}.parquet"
    return sorted(set(pq.read_table(path, columns=["prompt_id"])["prompt_id"].to_pylist()))


def mask_steps(folder):
    """The step that every ablated pass was told, which its masks depend on."""
    calls = map(json.loads, (folder / "checkpoints" / "calls.jsonl").read_text().splitlines())
    return [call["perception_step"] for call in calls if "ablated" in call["method"]]


def check_whole(folder, in_flight, last=STEPS):
    """Nothing up to step `last` is lost, no step is logged twice, and none is done twice but those in flight."""
    steps = list(range(1, last + 1))
    found = metrics(folder)
    assert sorted(found) == steps
    assert _repeated([step for each in steps_by_attempt(folder) for step in each], steps) == set()
    assert _repeated(mask_steps(folder), steps) <= set(in_flight)
    rows = [prompts(folder, step) for step in steps]
    assert [len(names) for names in rows] == [4] * last
    assert len({name for names in rows for name in names}) == 4 * last
    names = [{name for name in data if not name.startswith("timing")} for data in found.values()]
    assert all(each == names[0] for each in names)
    rates = [found[step]["actor/lr"] for step in steps]
    assert sorted(set(rates), reverse=True) == rates


def _repeated(done, steps):
    """Of steps that were done in order, and all of them, those that were done more than once."""
    assert sorted(done) == done
    assert sorted(set(done)) == steps
    return {step for step in steps if done.count(step) > 1}
