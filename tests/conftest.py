# SPDX-License-Identifier: Apache-2.0
import os

# verl chooses its platform when it is first imported, so this comes before everything else.
os.environ["VERL_PLATFORM"] = "cpu"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from hypothesis import settings

# How long an example takes says how busy the machine is.
settings.register_profile("any_speed", parent=settings.default, deadline=None)
settings.load_profile("any_speed")
