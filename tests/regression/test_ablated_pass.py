# SPDX-License-Identifier: Apache-2.0
"""The ablated view's log-probabilities depend on the row alone, whatever verl does with the batch."""

import pytest
import torch
from support import batches, ranks, tiny, workers

from verl_ext.errors import DataError

pytestmark = pytest.mark.usefixtures("process_group")

SETTINGS = {"compute_loss": False, "calculate_entropy": False}
ABLATIONS = {"drop_vision": ["+perception=pgpo"], "random_patch": ["+perception=papo_g"]}
# Another split pads to other lengths, which changes the order of floating-point sums (seen: 2e-6).
ATOL = 2e-5


@pytest.fixture(scope="module", params=ABLATIONS)
def ablation(request):
    return request.param


@pytest.fixture(scope="module")
def worker(ablation):
    return workers.build(*ABLATIONS[ablation])


def ablated(worker, rows, step=3, **settings):
    output = worker.compute_ablated_log_prob(batches.batch(rows, perception_step=step, **SETTINGS, **settings))
    return [values.clone() for values in output["ablated_log_prob"].unbind()]


def close(a, b):
    return all(torch.allclose(x, y, atol=ATOL, rtol=0) for x, y in zip(a, b, strict=True))


def test_row_order_changes_nothing(worker, rows):
    order = [5, 2, 7, 0, 3, 6, 1, 4]
    shuffled = ablated(worker, [rows[i] for i in order])
    expected = ablated(worker, rows)
    assert close(shuffled, [expected[i] for i in order])


@pytest.mark.parametrize(
    "split",
    [
        {"micro_batch_size_per_gpu": 1},
        {"micro_batch_size_per_gpu": 2},
        {"micro_batch_size_per_gpu": 8},
        {"use_dynamic_bsz": True, "max_token_len_per_gpu": 160},
    ],
    ids=["1", "2", "8", "dynamic"],
)
def test_the_split_into_micro_batches_changes_nothing(worker, rows, split):
    assert close(ablated(worker, rows, **split), ablated(worker, rows))


def test_two_ranks_give_what_one_gives(worker, rows, ablation, tmp_path):
    both = ranks.both(tmp_path, "compute_ablated_log_prob", *ABLATIONS[ablation])
    assert close(both["ablated_log_prob"], ablated(worker, rows))


def test_the_clean_view_is_another(worker, rows):
    data = batches.batch(rows, **SETTINGS)
    lengths = [row.response_length for row in rows]
    clean = [
        values[-length - 1 : -1]
        for values, length in zip(worker.compute_log_prob(data)["log_probs"].unbind(), lengths, strict=True)
    ]
    assert not close(clean, ablated(worker, rows))


def test_the_clean_pass_is_clean_again_afterwards(worker, rows):
    before = worker.compute_log_prob(batches.batch(rows, **SETTINGS))["log_probs"].values().clone()
    ablated(worker, rows)
    assert torch.equal(worker.compute_log_prob(batches.batch(rows, **SETTINGS))["log_probs"].values(), before)


def test_the_batch_is_left_as_it_was(worker, rows):
    data = batches.batch(rows, perception_step=3, **SETTINGS)
    ids = data["input_ids"].values().clone()
    worker.compute_ablated_log_prob(data)
    assert torch.equal(data["input_ids"].values(), ids)
    kept = data["multi_modal_inputs"][0]
    assert torch.equal(getattr(kept, "data", kept)["pixel_values"], rows[0].inputs["pixel_values"])


def test_only_small_fields_leave_the_worker(worker, rows):
    output = worker.compute_ablated_log_prob(batches.batch(rows, perception_step=3, **SETTINGS))
    tokens = sum(row.response_length for row in rows)
    sizes = {name: (value.values() if value.is_nested else value).nbytes for name, value in output.items()}
    assert sizes == {"ablated_log_prob": 4 * tokens}


def test_packed_and_padded_engines_agree(rows, ablation, worker):
    with workers.transformers_restored():
        packed = workers.build(*ABLATIONS[ablation], "actor_rollout_ref.model.use_remove_padding=True")
        result = ablated(packed, rows, use_remove_padding=True)
    assert close(result, ablated(worker, rows))


def test_images_kept_by_the_clean_pass_serve_the_ablated_one(worker, rows):
    worker.compute_log_prob(batches.batch(rows, perception_keep_images=True, **SETTINGS))
    without = batches.batch(rows, perception_step=3, **SETTINGS).exclude("multi_modal_inputs")
    kept = worker.compute_ablated_log_prob(without)["ablated_log_prob"].unbind()
    assert all(torch.equal(x, y) for x, y in zip(kept, ablated(worker, rows), strict=True))


def test_other_rows_than_the_clean_pass_had_are_refused(worker, rows):
    worker.compute_log_prob(batches.batch(rows, perception_keep_images=True, **SETTINGS))
    others = batches.batch(rows[::-1], perception_step=3, **SETTINGS).exclude("multi_modal_inputs")
    with pytest.raises(RuntimeError, match="other rows than the pass that kept them"):
        worker.compute_ablated_log_prob(others)


class TestMasks:
    """The random masks of `random_patch`."""

    @pytest.fixture(scope="class")
    def papo(self):
        return workers.build(*ABLATIONS["random_patch"])

    def test_the_same_seed_and_step_give_the_same_mask_to_a_new_worker(self, papo, rows):
        assert close(ablated(papo, rows), ablated(workers.build(*ABLATIONS["random_patch"]), rows))

    @pytest.mark.parametrize("change", ["step", "seed"])
    def test_another_step_or_seed_gives_another_mask(self, papo, rows, change):
        if change == "step":
            other = ablated(papo, rows, step=4)
        else:
            other = ablated(workers.build(*ABLATIONS["random_patch"], "perception.seed=1"), rows)
        assert not close(other, ablated(papo, rows))


def test_a_wrong_number_of_image_tokens_names_the_row(worker, rows):
    broken = [*rows[:2], tiny.Row(rows[2].input_ids, rows[2].position_ids, rows[2].response_length, rows[0].inputs)]
    data = batches.batch(broken, **SETTINGS)
    with pytest.raises(DataError, match=r"row 2.*image tokens but its images give 9 features"):
        worker.compute_log_prob(data)


def test_rows_of_equal_length_from_the_queue_are_handled(worker, rows):
    """torch takes the 4 of (4, L) for the ragged dimension when every L is the same."""
    same = [rows[0]] * 4
    data = batches.batch(same, perception_step=3, **SETTINGS)
    data["position_ids"] = torch.nested.as_nested_tensor([row.position_ids for row in same], layout=torch.jagged)
    assert data["position_ids"]._ragged_idx == 1
    output = worker.compute_ablated_log_prob(data)
    assert close(list(output["ablated_log_prob"].unbind()), ablated(worker, same))
