# SPDX-License-Identifier: Apache-2.0
import os
from pathlib import Path

# verl chooses its platform when it is first imported, so this comes before everything else.
os.environ["VERL_PLATFORM"] = "cpu"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is.
settings.register_profile("any_speed", parent=settings.default, deadline=None)
settings.load_profile("any_speed")

TESTS = Path(__file__).parent
# What `-m core` runs on the versions that verl pins for GPUs: the maths, the actor on another torch and transformers,
# and one whole run. Megatron's engine, token records and the other whole runs are not among it.
CORE = {
    "golden",
    "contract/test_verl_api.py",
    "e2e/test_main_ppo.py",
    "installation/test_beside_verl.py",
    "regression/test_ablated_pass.py",
    "regression/test_advantages.py",
    "regression/test_clean_pass.py",
    "regression/test_composition.py",
    "regression/test_estimators.py",
    "regression/test_megatron_sums.py",
    "regression/test_model_families.py",
    "regression/test_neutral_is_vanilla.py",
    "regression/test_response_logits.py",
    "regression/test_shared_prompts.py",
    "regression/test_resume.py",
    "regression/test_splits.py",
    "unit/attention/test_segments.py",
    "unit/models/test_vision_tower.py",
    "unit/passes/test_ablated_batch.py",
    "unit/ablation/test_ablation.py",
    "unit/configuration/test_before_ray.py",
    "unit/platforms/test_cpu_platform.py",
    "unit/signals/test_entropy.py",
    "unit/signals/test_full_vocabulary.py",
    "unit/project/test_setup.py",
    "unit/signals/test_signals.py",
    "unit/signals/test_similarity.py",
}


SLOW_CORE = ("regression/test_megatron_sums.py",)


def pytest_collection_modifyitems(items):
    for item in items:
        path = item.path.relative_to(TESTS)
        quick = item.get_closest_marker("slow") is None or str(path) in SLOW_CORE
        if quick and (str(path) in CORE or path.parts[0] in CORE):
            item.add_marker(pytest.mark.core)
