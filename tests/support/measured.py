# SPDX-License-Identifier: Apache-2.0
"""What a run with a measuring trainer wrote down, and what must hold of it."""

import json

MEASURED = {"VERL_USE_EXTERNAL_MODULES": "support.measuring_trainers"}


def recorded(run, name):
    """The lines of one of its files."""
    lines = (run.folder / "checkpoints" / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def check_that_no_image_is_fetched(run):
    """The ablated pass, the reference and the update have their images from where verl's own pass put them."""
    calls = recorded(run, "calls")
    assert {call["method"] for call in calls} >= {"compute_ablated_log_prob", "update_actor"}
    assert all("multi_modal_inputs" not in call["fields"] for call in calls)


def check_that_the_step_is_told(run):
    """Masks and schedules depend on it."""
    calls = recorded(run, "calls")
    masks = [call["perception_step"] for call in calls if "ablated" in call["method"]]
    done = [call["perception_steps_done"] for call in calls if call["method"] == "update_actor"]
    assert masks == sorted(run.steps)
    assert done == [step - 1 for step in sorted(run.steps)]
    assert {call["perception_total_steps"] for call in calls if "perception_total_steps" in call} == {max(run.steps)}
