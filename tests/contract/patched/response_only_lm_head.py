# SPDX-License-Identifier: Apache-2.0
"""verl's actor on a packed batch, with all logits and with those of responses: what differs, as JSON."""

import json
from functools import partial

import torch
import verl
from support import batches, tiny, workers
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import no_padding_2_padding, response_from_nested, response_predictor_indices

PACKED = "actor_rollout_ref.model.use_remove_padding=True"
OPTION = "actor_rollout_ref.actor.fsdp_config.response_only_lm_head=True"


def log_probs(worker, rows):
    """({name: packed values of all tokens}, numbers of states that the head saw)."""
    seen = []
    handle = worker.actor.engine.module.lm_head.register_forward_hook(lambda _m, _a, out: seen.append(out.shape[1]))
    settings = {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 4, "use_remove_padding": True}
    output = worker.compute_log_prob(batches.batch(rows, compute_loss=False, calculate_entropy=True, **settings))
    handle.remove()
    return {name: output[name] for name in ("log_probs", "entropy")}, seen


def update(worker, rows):
    """(loss, {name: gradient}) of one mini-batch."""
    data = batches.batch(rows, calculate_entropy=True)
    settings = {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 4, "use_remove_padding": True}
    tu.assign_non_tensor(data, use_fused_kernels=False, global_batch_size=len(rows), **settings)
    engine = worker.actor.engine
    with engine.train_mode():
        engine.optimizer_zero_grad()
        output = engine.forward_backward_batch(data, worker.actor.loss_fn, forward_only=False)
        gradients = {n: p.grad.full_tensor().clone() for n, p in engine.module.named_parameters() if p.grad is not None}
    return sum(output["loss"]), gradients


def refusal(worker, rows, **settings):
    """What the option says to a batch that it cannot work on."""
    data = batches.batch(rows[:1], **{"use_remove_padding": True, "use_fused_kernels": False, **settings})
    if settings.pop("sft", False):
        del data["responses"]
    try:
        worker.actor.engine.prepare_model_inputs(data)
    except ValueError as error:
        return str(error)


def layouts_agree():
    """Whether the kept positions are those that verl reads, with responses nested and with responses padded."""
    prompts, responses = [3, 1, 4], [2, 5, 1]
    lengths = [p + r for p, r in zip(prompts, responses, strict=True)]
    packed = torch.arange(float(sum(lengths)))
    nested = {
        name: batches.jagged([torch.zeros(n) for n in sizes])
        for name, sizes in (("input_ids", lengths), ("prompts", prompts), ("responses", responses))
    }
    attention = [[0] * (4 - p) + [1] * (p + r) + [0] * (5 - r) for p, r in zip(prompts, responses, strict=True)]
    padded = {"prompts": torch.zeros(3, 4), "responses": torch.zeros(3, 5), "attention_mask": torch.tensor(attention)}
    for fields in (nested, {**padded, "input_ids": nested["input_ids"]}):
        data = TensorDict(fields, batch_size=3)
        read = no_padding_2_padding(packed, data)
        read = torch.cat([row[:n] for row, n in zip(read, responses, strict=True)])
        if not torch.equal(packed[response_predictor_indices(data)], read):
            return False
    return True


def main():
    rows = batches.rows(tiny.model(torch.float32))
    mask = batches.batch(rows)["response_mask"]
    of_responses = partial(response_from_nested, response_mask=mask)
    with workers.process_group():
        full, short = workers.build(PACKED), workers.build(PACKED, OPTION)
        (all_full, seen_full), (all_short, seen_short) = log_probs(full, rows), log_probs(short, rows)
        (loss_full, grads_full), (loss_short, grads_short) = update(full, rows), update(short, rows)
        refusals = [
            refusal(short, rows, **settings)
            for settings in ({"use_remove_padding": False}, {"use_fused_kernels": True}, {"sft": True}, {})
        ]
    largest = max(gradient.abs().max() for gradient in grads_full.values())
    return {
        "verl": verl.__file__,
        "tokens": sum(len(row.input_ids) for row in rows),
        "responses": sum(row.response_length for row in rows),
        "seen_full": sum(seen_full),
        "seen_short": sum(seen_short),
        "bit_equal": {
            name: torch.equal(of_responses(all_full[name]).values(), of_responses(all_short[name]).values())
            for name in all_full
        },
        "distinct": len(of_responses(all_full["log_probs"]).values().unique()),
        "elsewhere": all_short["log_probs"].values().count_nonzero().item(),
        "losses": [loss_full, loss_short],
        "same_parameters": grads_full.keys() == grads_short.keys(),
        "largest_gradient": largest.item(),
        "gradient_error": max((grads_short[n] - grads_full[n]).abs().max().item() for n in grads_full),
        "refusals": refusals,
        "layouts_agree": layouts_agree(),
    }


if __name__ == "__main__":
    print(json.dumps(main()))
