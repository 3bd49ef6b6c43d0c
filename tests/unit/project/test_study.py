# SPDX-License-Identifier: Apache-2.0
"""The controlled comparison: its statistics, its reading of results, its arms, and the page that stands in the docs."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiny import MODEL, ROOT

from study.arms import ARMS, BY_NAME, PAPO_COEF
from study.comparisons import Comparisons
from study.evaluate import Evaluator
from study.figures import draw_all
from study.page import page
from study.plan import Plan
from study.processes import Processes, Stopped
from study.results import Run, read_results
from study.run import KEPT, Folders, Job, RunFailed, run_all, train
from study.statistics import difference, holm, interval, quantile
from study.tables import CLIP, Tables
from study.task import wording_alone, write_task
from verl_ext.configuration.compose import compose
from verl_ext.configuration.validation import validate
from verl_ext.errors import DataError

DOCS = ROOT / "docs"
RESULTS = ROOT / "study" / "results"
STEPS = Plan().steps
NUMBERS = st.floats(-10, 10, allow_nan=False, width=32)


def result(arm, seed, accuracy=0.7, blind=0.4, versions="1", steps=STEPS):
    by_kind = {"all": accuracy, "yes_no": accuracy, "color": accuracy}
    return {
        "arm": arm,
        "seed": seed,
        "overrides": list(BY_NAME[arm].with_seed(seed)) if arm in BY_NAME else [],
        "settings": Plan(steps).settings(),
        "versions": {"verl": versions},
        "inputs": {"test.parquet": "0"},
        "evaluation": {
            "accuracy": {"image": by_kind, "blind": {name: blind for name in by_kind}},
            "greedy": {"image": by_kind, "blind": by_kind},
            "format": 1.0,
            "visual_dependency": accuracy / 4,
            "response_tokens": 13.0,
        },
        "accuracy_at": {"8": 0.5, "16": 0.6},
        "steps": {name: [5.0 if name == "timing_s/step" else 1.0] * steps for name in KEPT},
    }


def written(folder, *results):
    folder.mkdir(parents=True, exist_ok=True)
    for entry in results:
        (folder / f"{entry['arm']}-{entry['seed']}.json").write_text(json.dumps(entry))
    start = {**result("start", 0), "wording_alone": {"yes_no": 0.8, "color": 0.1}}
    (folder / "start.json").write_text(json.dumps(start))
    return folder


@pytest.fixture
def results(tmp_path):
    """Every arm with three seeds; at each PGPO lies about 0.1 above GRPO, the others on either side of it."""

    def accuracy(arm, seed):
        apart = 0.1 + 0.001 * seed if arm == "pgpo" else (len(arm) - 4) * 0.005 * (seed - 2)
        return 0.7 + 0.01 * seed + apart

    runs = [result(arm.name, seed, accuracy(arm.name, seed)) for arm in ARMS for seed in (1, 2, 3)]
    return read_results(written(tmp_path, *runs))


def test_the_interval_of_a_known_sample():
    # Mean 3, standard error sqrt(2.5 / 5), t(4) at 97.5 % is 2.776.
    found = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == 3.0
    assert found.half == pytest.approx(2.7764 * 0.70711, rel=1e-4)


def test_an_interval_needs_two_runs():
    with pytest.raises(ValueError, match="1 run"):
        interval([1.0])


@given(st.lists(NUMBERS, min_size=2, max_size=9), st.floats(0.5, 5))
def test_pairing_removes_what_seeds_share(values, shift):
    base = dict(enumerate(values))
    found = difference({seed: value + shift for seed, value in base.items()}, base)
    assert found.interval.mean == pytest.approx(shift, abs=1e-5)
    assert found.separates


@given(st.lists(NUMBERS, min_size=2, max_size=9))
def test_an_arm_does_not_differ_from_itself(values):
    arm = dict(enumerate(values))
    found = difference(arm, arm)
    assert (found.interval.mean, found.p, found.separates) == (0.0, 1.0, False)


def test_only_shared_seeds_are_compared():
    assert difference({1: 1.0, 2: 2.0, 3: 9.0}, {1: 0.5, 2: 1.0, 4: 0.0}).interval.mean == 0.75


def test_holm_on_the_textbook_example():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})


@given(st.dictionaries(st.integers(), st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_value_and_keeps_the_order(values):
    named = {str(key): p for key, p in values.items()}
    adjusted = holm(named)
    assert all(named[name] <= adjusted[name] <= 1 for name in named)
    ordered = sorted(named, key=named.get)
    assert [adjusted[name] for name in ordered] == sorted(adjusted.values())


def test_steps_to_a_target_lie_on_the_line_through_the_checkpoints():
    run = Run("grpo", 1, result("grpo", 1, accuracy=0.8))
    assert run.steps_to(0.55, start=0.4) == pytest.approx(12.0)
    assert run.steps_to(0.7, start=0.4) == pytest.approx(20.0)
    assert run.steps_to(0.9, start=0.4) == math.inf
    assert run.steps_to(0.35, start=0.4) == 0.0


def test_results_of_other_versions_are_refused(tmp_path):
    written(tmp_path, result("grpo", 1), result("grpo", 2), result("pgpo", 1, versions="2"))
    with pytest.raises(DataError, match="pgpo-1: made with"):
        read_results(tmp_path)


def test_results_of_another_length_are_refused(tmp_path):
    written(tmp_path, result("grpo", 1), result("grpo", 2), result("pgpo", 1, steps=3))
    with pytest.raises(DataError, match=r"pgpo-1: made with settings .*'steps': 3"):
        read_results(tmp_path)


def test_results_of_other_questions_are_refused(tmp_path):
    written(tmp_path, result("grpo", 1), result("grpo", 2), {**result("pgpo", 1), "inputs": {"test.parquet": "1"}})
    with pytest.raises(DataError, match=r"pgpo-1: made with inputs .*; delete its file"):
        read_results(tmp_path)


def test_results_of_another_arm_of_the_same_name_are_refused(tmp_path):
    changed = {**result("pgpo", 1), "overrides": ["+perception=pgpo"]}
    written(tmp_path, result("grpo", 1), result("grpo", 2), changed)
    with pytest.raises(DataError, match=r"pgpo-1: made with .*, its arm now has"):
        read_results(tmp_path)


def test_results_of_other_versions_are_refused_before_anything_is_run(tmp_path):
    folders = Folders(written(tmp_path / "results", result("grpo", 1)), tmp_path / "work")
    with pytest.raises(DataError, match=r"grpo-1: made with versions .* another folder for --results"):
        run_all([Job(BY_NAME["grpo"], seed) for seed in (1, 2)], folders, at_a_time=1, plan=Plan(train=4, test=4))
    assert not (folders.work / "grpo-2").exists()


def test_settings_name_no_place_on_this_machine():
    assert str(MODEL.parents[1]) not in json.dumps(Plan().settings())


def test_too_few_results_say_what_makes_them(tmp_path):
    with pytest.raises(DataError, match=r"1 results of GRPO; `bash scripts/compare\.sh`"):
        read_results(written(tmp_path, result("grpo", 1)))


def test_an_arm_with_one_run_is_left_out_until_it_has_two(tmp_path):
    runs = [result("grpo", 1), result("grpo", 2), result("grpo", 3), result("dapo", 1), result("pgpo", 1)]
    found = read_results(written(tmp_path, *runs, result("pgpo", 2)))
    assert [arm.name for arm in found.arms] == ["grpo", "pgpo"]
    assert found.seeds == "2 to 3"


def test_arms_without_seeds_in_common_are_not_compared(tmp_path):
    runs = [result("grpo", seed) for seed in (1, 2)] + [result("pgpo", seed) for seed in (2, 3)]
    results = read_results(written(tmp_path, *runs))
    assert not Comparisons(results).has("pgpo", "grpo")
    text = page(results, "01/02/2026", DOCS)
    assert "| PGPO | 0.700 ± 0.000 | - |" in text
    assert "half interval" not in text


def test_runs_that_fell_are_named(tmp_path):
    runs = [result("grpo", 1), result("grpo", 2), result("pgpo", 1, 0.71), result("pgpo", 2, 0.2)]
    assert Tables(read_results(written(tmp_path, *runs))).fallen() == "PGPO (seed 2, 0.200)"


def test_the_strictest_step_of_the_correction():
    # Of Student's distribution with 4 degrees of freedom, as printed tables have it.
    assert quantile(0.05, 4) == pytest.approx(2.776, abs=5e-4)
    assert quantile(0.01, 4) == pytest.approx(4.604, abs=5e-4)


def test_the_page_names_what_separates_and_what_does_not(results):
    text = page(results, "01/02/2026", DOCS)
    assert "accuracy (GRPO: 0.720 ± 0.025): above it PGPO; below it none." in re.sub(r"\s+", " ", text)
    # Differences of 0.101, 0.102 and 0.103: standard error 0.001 / sqrt(3), t(2) at 97.5 % is 4.303.
    assert "| PGPO | 0.822 ± 0.027 | +0.102 [+0.100, +0.104] ** |" in text
    assert "PAPO-D, minus DAPO: not resolved (" in text
    assert "was 0.60 (0.60 in the first half, 0.60 in the second) times as large as PAPO-G's" in text
    assert "was 1.00 (1.00 in the first half, 1.00 in the second) times as large as PAPO-G's" in text
    assert "| GRPO | 0.710 | 0.720 | 0.730 |" in text
    # One second of five is the ablated pass.
    same = r"1\.00 \[1\.00, 1\.00\]"
    assert re.search(rf"\| PGPO \| 3 of 3 \| .* \| {same} \| {same} \| \+25% \|", text)
    assert "| before training | 0.700 | - | 0.700 | - |" in text
    # Of 20 comparisons in each of six outcomes.
    assert "Of the 120 intervals on this page about 6 would" in text
    assert f"]({os.path.relpath(results.folder, DOCS)})" in text


def test_a_control_that_gains_is_named(tmp_path):
    gains = {"grpo": 0.0, "papo_text": 0.1, "pgpo": 0.1, "pgpo_shuffled": 0.0}
    runs = [
        result(arm, seed, 0.7 + 0.01 * seed + gain * (1 + 0.01 * seed))
        for arm, gain in gains.items()
        for seed in (1, 2, 3)
    ]
    found = read_results(written(tmp_path, *runs))
    assert ("accuracy", "PAPO-text (0.006)") in Comparisons(found).controls_above()
    assert "PAPO-text (0.006).\n" in page(found, "01/02/2026", DOCS).partition("Controls lie above GRPO too")[2]


def test_a_difference_that_the_correction_takes_back_has_one_mark(tmp_path):
    """Differences of 0.03, 0.04 and 0.05: p is 0.02, which a correction for four comparisons takes back."""
    runs = [result("grpo", seed) for seed in (1, 2, 3)]
    runs += [result(name, seed, 0.75 + 0.005 * seed) for name in ("dapo", "papo_d") for seed in (1, 2, 3)]
    runs += [result("pgpo", seed, 0.7 + 0.02 * (seed + 1)) for seed in (1, 2, 3)]
    entry = Comparisons(read_results(written(tmp_path, *runs))).minus("pgpo", "grpo", "accuracy")
    assert entry.found.separates
    assert entry.adjusted > 0.05
    assert str(entry).endswith("] *")


def test_what_a_method_did_not_measure_is_left_open(results):
    name = "perception/visual_dependency/mean"
    steps = results.runs["grpo"][0].data["steps"]
    steps[name] = [None, *[2.0] * (STEPS - 1)]
    assert results.runs["grpo"][0].mean(name) == 2.0
    for run in results.runs["grpo"]:
        run.data["steps"][name] = [None] * STEPS
    table = Tables(results).signals()
    assert "| GRPO | - | 1.00 |" in table
    assert "| PGPO | 1.00 | 1.00 |" in table


def test_steps_that_are_clipped_are_counted(results):
    for run in results.runs["pgpo"]:
        run.data["steps"]["actor/grad_norm"] = [0.5] * (STEPS // 4) + [1.5] * (STEPS - STEPS // 4)
    assert re.search(r"\| PGPO \| .* \| 1\.50 \| 75% \|", Tables(results).signals())


def test_arms_of_even_weights_are_named(results):
    name = "perception/token_weight/effective_fraction"
    for arm, runs in results.runs.items():
        for run in runs:
            run.data["steps"][name] = [None if arm == "grpo" else 1.0 if arm == "pepo" else 0.4] * STEPS
    assert Tables(results).even() == "PEPO"


def test_some_arms_and_seeds_are_read_alone(tmp_path):
    runs = [result(arm, seed) for arm in ("grpo", "pgpo", "dapo") for seed in (1, 2, 3)]
    found = read_results(written(tmp_path, *runs), ["grpo", "pgpo"], 2)
    assert [arm.name for arm in found.arms] == ["grpo", "pgpo"]
    assert found.seeds == "2"


def test_the_plots_are_drawn(results, tmp_path):
    draw_all(results, tmp_path / "plots")
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"differences.png", "looking.png", "curves.png"}


def test_wording_alone_knows_the_most_frequent_answer_and_falls_back_on_the_kind():
    def row(question, answer, kind="yes_no"):
        extra = {"question": question, "answer_type": kind}
        return {"extra_info": extra, "reward_model": {"ground_truth": answer}}

    known = [row("is it red?", "no"), row("is it red?", "no"), row("is it red?", "yes"), row("is it not red?", "yes")]
    asked = [row("is it red?", "no"), row("is it red?", "yes"), row("is it blue?", "no"), row("is it blue?", "no")]
    # "no" to the first wording; to one that is not known, the first of the equally frequent answers of its kind.
    assert wording_alone(known, asked) == {"yes_no": 0.75}


@pytest.mark.parametrize("name", list(BY_NAME))
def test_every_arm_is_a_valid_configuration(name, tmp_path):
    config = compose([*Plan().overrides(tmp_path, tmp_path, 3), *BY_NAME[name].with_seed(3)])
    assert config.data.seed == 3
    assert config.actor_rollout_ref.actor.grad_clip == CLIP
    assert config.algorithm.filter_groups.enable == (name in ("dapo", "papo_d"))
    assert not config.actor_rollout_ref.actor.use_kl_loss
    if "perception" in config:
        validate(config)
        assert config.perception.seed == 3


def test_every_comparison_is_with_an_arm_that_exists():
    assert all(other in BY_NAME for arm in ARMS for other in arm.against)
    assert [arm.name for arm in ARMS if "grpo" not in arm.against] == ["grpo"]


def test_papos_coefficient_is_that_of_its_configuration(tmp_path):
    shared = Plan().overrides(tmp_path, tmp_path, 1)
    arms = {name: compose([*shared, *BY_NAME[name].with_seed(1)]) for name in ("papo_g", "papo_text", "pgpo_papo")}
    assert arms["papo_g"].perception.papo.coef == arms["pgpo_papo"].perception.papo.coef == PAPO_COEF
    assert len({config.perception.papo.entropy_coef for config in arms.values()}) == 1


def test_finished_runs_are_not_run_again(tmp_path):
    folders = Folders(written(tmp_path / "results", result("grpo", 1)), tmp_path / "work")
    run_all([Job(BY_NAME["grpo"], 1)], folders, at_a_time=1)
    assert not folders.work.exists()


@pytest.mark.slow
def test_a_failed_run_is_named_with_its_log(tmp_path):
    work = tmp_path / "grpo-1"
    work.mkdir()
    with pytest.raises(RunFailed, match=r"grpo-1: main_ppo ended with status 1; its log is .*train\.log"):
        train(["no_such_key=1"], work, Processes())


def _arguments(process):
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def test_processes_end_when_they_are_stopped_and_none_is_started_after(tmp_path):
    processes = Processes()
    with ThreadPoolExecutor(1) as pool:
        status = pool.submit(processes.run, ["sleep", "60"], {}, tmp_path / "log", tmp_path)
        while not status.done() and ["sleep", "60"] not in map(_arguments, psutil.Process().children()):
            time.sleep(0.01)
        processes.stop()
        assert status.result(timeout=10) == -signal.SIGTERM
    with pytest.raises(Stopped):
        processes.run(["true"], {}, tmp_path / "log", tmp_path)


@pytest.mark.slow
def test_an_interrupted_comparison_ends_its_run_and_starts_no_other(tmp_path):
    """The real command, asked to end while its first run starts."""
    results = written(tmp_path / "results")
    options = ["--arms", "grpo", "--at-a-time", "1", "--work", str(tmp_path), "--results", str(results)]
    with subprocess.Popen([sys.executable, "-m", "study", *options], cwd=ROOT, start_new_session=True) as process:
        while not (tmp_path / "grpo-1" / "train.log").exists():
            assert process.poll() is None
            time.sleep(0.1)
        process.terminate()
        assert process.wait(timeout=60) != 0
    assert not [process for process in psutil.process_iter() if str(tmp_path) in " ".join(_arguments(process))]
    assert not (tmp_path / "grpo-2").exists()
    assert [path.name for path in results.iterdir()] == ["start.json"]


def test_the_page_in_the_docs_is_that_of_the_results():
    text = (DOCS / "comparison.md").read_text()
    date = re.search(r"Last updated: (\S+)", text)[1]
    results = read_results(RESULTS)
    assert results.arms == list(ARMS)
    assert min(len(runs) for runs in results.runs.values()) >= 5
    assert text == page(results, date, DOCS)


@pytest.mark.slow
def test_the_evaluation_repeats_and_sees_the_image(tmp_path):
    write_task(tmp_path, train=4, test=16)
    evaluator = Evaluator(tmp_path, MODEL)
    first, again = evaluator.evaluate(MODEL), evaluator.evaluate(MODEL)
    assert first == again
    assert first["accuracy"]["image"]["color"] > first["accuracy"]["blind"]["color"] + 0.2
    assert first["visual_dependency"] > 0.02
    assert evaluator.accuracy_with_image(MODEL) == pytest.approx(first["accuracy"]["image"]["all"], abs=0.15)
