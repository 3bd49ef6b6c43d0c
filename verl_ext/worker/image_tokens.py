# SPDX-License-Identifier: Apache-2.0
"""Before a pass: do a row's image tokens and its image features agree?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict

from verl_ext.data.row_check import IMAGES_ONLY
from verl_ext.errors import DataError
from verl_ext.models.facts import ModelFacts
from verl_ext.passes.row_inputs import Inputs, has_image, row_inputs


def check_image_tokens(data: TensorDict, model: ModelFacts) -> None:
    """Compare the placeholders in each row with the features that will replace them.

    Raises:
        DataError: a row has a video, its counts differ, or a response has image tokens (a tool returned a picture, or
            an agent loop manager of the user's own lets through what the model samples); names the row's uid and data
            index, and the counts.
    """
    _refuse_videos(data, model)
    prompts, responses = (count_vision_tokens(data[name], model) for name in ("prompts", "responses"))
    for row, inputs in enumerate(row_inputs(data)):
        if responses[row]:
            raise DataError(
                f"{_row_name(data, row)}: its response has {responses[row]} image tokens; images in responses (tools "
                "that return pictures) are not supported by perception methods; tokens that the model sampled are "
                "masked, unless actor_rollout_ref.rollout.agent.agent_loop_manager_class names another manager"
            )
        tokens = prompts[row]
        if tokens and tokens == len(data["prompts"][row]):
            raise DataError(
                f"{_row_name(data, row)}: its prompt is image tokens alone ({tokens}); without them nothing is left "
                "that its response could be predicted from; add a question, or the chat template's own tokens"
            )
        features = _feature_count(inputs, model.patch_format.merge_size)
        if tokens != features:
            raise DataError(
                f"{_row_name(data, row)}: its prompt has {tokens} image tokens but its images give {features} "
                "features; check that the prompt names every image once and that no placeholder was typed in the text"
            )


def count_vision_tokens(sequences: torch.Tensor, model: ModelFacts) -> list[int]:
    """How many vision placeholders each of the (B, j) jagged sequences has."""
    return _count(sequences, model.vision_token_ids)


def _refuse_videos(data: TensorDict, model: ModelFacts) -> None:
    video_ids = () if model.video_token_id is None else (model.video_token_id,)
    prompts, responses = (_count(data[name], video_ids) for name in ("prompts", "responses"))
    for row, inputs in enumerate(row_inputs(data)):
        tokens, features = prompts[row] + responses[row], _has_video_features(inputs)
        if tokens or features:
            raise DataError(
                f"{_row_name(data, row)}: it has a video ({tokens} video tokens, {'with' if features else 'without'} "
                f"features); {IMAGES_ONLY}"
            )


def _count(sequences: torch.Tensor, token_ids: Sequence[int]) -> list[int]:
    ids = torch.tensor(token_ids, dtype=torch.long)
    return [int(torch.isin(sequence.cpu(), ids).sum()) for sequence in sequences.unbind()]


def _has_video_features(inputs: Inputs) -> bool:
    return any(inputs.get(key) is not None and len(inputs[key]) for key in ("pixel_values_videos", "video_grid_thw"))


def _feature_count(inputs: Inputs, merge_size: int) -> int:
    return int(inputs["image_grid_thw"].prod(dim=-1).sum()) // merge_size**2 if has_image(inputs) else 0


def _row_name(data: TensorDict, row: int) -> str:
    names = [f"{key} {data[key][row]}" for key in ("uid", "index") if key in data]
    return f"row {row} ({', '.join(names)})" if names else f"row {row}"
