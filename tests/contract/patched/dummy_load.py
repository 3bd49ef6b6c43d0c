# SPDX-License-Identifier: Apache-2.0
"""What vLLM's `load_format=dummy` leaves of a small module inside verl's rollout worker, as JSON."""

import json

import torch
import verl
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension
from vllm.config import LoadConfig
from vllm.model_executor.model_loader import get_model_loader
from vllm.model_executor.models.vision import FusedInputNorm

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


class Model(torch.nn.Module):
    """vLLM's image normalisation, a trained layer, and a buffer that is in no state dict."""

    def __init__(self):
        super().__init__()
        self.input_norm = FusedInputNorm(MEAN, STD, rescale_factor=1 / 255)
        self.projection = torch.nn.Linear(3, 2, dtype=torch.float32)
        self.register_buffer("cache", torch.ones(3), persistent=False)


def main():
    torch.manual_seed(0)
    vLLMColocateWorkerExtension(vllm_config=None)  # as vLLM does before it loads a model
    built, loaded = Model(), Model()
    loaded.load_state_dict(built.state_dict())
    get_model_loader(LoadConfig(load_format="dummy")).load_weights(loaded, None)
    before, after = ({**dict(m.named_parameters()), **dict(m.named_buffers())} for m in (built, loaded))
    pixels = torch.tensor([[0, 255] * 3], dtype=torch.uint8)
    return {
        "verl": verl.__file__,
        "kept": sorted(name for name in before if torch.equal(before[name], after[name])),
        "replaced": sorted(name for name in before if not torch.equal(before[name], after[name])),
        "pixels": loaded.input_norm(pixels, torch.float32).tolist()[0],
        "pixels as built": built.input_norm(pixels, torch.float32).tolist()[0],
    }


if __name__ == "__main__":
    print(json.dumps(main()))
