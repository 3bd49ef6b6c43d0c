# SPDX-License-Identifier: Apache-2.0
"""GLM's vision tower, whose table of positions is read by its weight, under both of FSDP's ways to shard."""

import pytest
import torch
from support import family_rows, workers
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel
from verl.utils.fsdp_utils import apply_fsdp2, get_fsdp_wrap_policy

from verl_ext.models.vision_tower import fit_vision_tower, vision_tower


@pytest.fixture
def group():
    workers.rendezvous()
    torch.distributed.init_process_group("gloo")
    yield
    torch.distributed.destroy_process_group()


def sharded(model, kind):
    if kind == "fsdp2":
        apply_fsdp2(model, {"mesh": init_device_mesh("cpu", (1,)), "reshard_after_forward": True}, {})
        return model
    policy = get_fsdp_wrap_policy(model, config=None)
    return FullyShardedDataParallel(
        model, auto_wrap_policy=policy, use_orig_params=False, device_id=torch.device("cpu")
    )


def response_logits(model, row):
    given = {"input_ids": row.input_ids[None], "position_ids": row.position_ids[:, None], **row.inputs}
    return model(**given, use_cache=False).logits


@pytest.mark.parametrize("kind", ["fsdp", "fsdp2"])
@pytest.mark.parametrize("name", ["glm4v_moe", "glm46v"])
def test_logits_and_under_fsdp2_gradients_are_those_of_the_whole_model(name, kind, group):
    plain = family_rows.load(name)
    row = family_rows.rows(name, plain)[0]
    wanted = response_logits(plain, row)
    wanted.square().mean().backward()
    table = vision_tower(plain).get_submodule("embeddings.position_embedding").weight.grad
    model = sharded(family_rows.load(name), kind)
    fit_vision_tower(model)
    found = response_logits(model, row)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert table.abs().max() > 0
    if kind == "fsdp2":
        found.square().mean().backward()
        own = vision_tower(model).get_submodule("embeddings.position_embedding").weight.grad
        torch.testing.assert_close(own.full_tensor(), table, atol=1e-6, rtol=1e-4)


def test_fsdp2_alone_leaves_the_table_unreadable(group):
    model = sharded(family_rows.load("glm46v"), "fsdp2")
    row = family_rows.rows("glm46v", family_rows.load("glm46v"))[0]
    with pytest.raises(Exception, match="DTensor"):
        response_logits(model, row)
