# SPDX-License-Identifier: Apache-2.0
"""An agent loop whose responses end in an image token, as those of a rollout may that bans none."""

from pathlib import Path

from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

CONFIGURATION = Path(__file__).with_suffix(".yaml")
OVERRIDES = [
    f"actor_rollout_ref.rollout.agent.agent_loop_config_path={CONFIGURATION}",
    "actor_rollout_ref.rollout.agent.default_agent_loop=ends_in_an_image_token",
]


class EndsInAnImageToken(SingleTurnAgentLoop):
    """verl's own loop, and the image token in the place of the last token that the model sampled."""

    async def run(self, sampling_params, **kwargs):
        output = await super().run(sampling_params, **kwargs)
        output.response_ids = [*output.response_ids[:-1], self.processor.image_token_id]
        return output
