# SPDX-License-Identifier: Apache-2.0
"""A model that caps its logits behind the head, as Gemma does: signals are those of what it samples from."""

import pytest
import torch
from support import batches, families, family_rows, workers

from verl_ext.models.language_model import family, logit_cap
from verl_ext.signals import truncated_entropy
from verl_ext.signals.full_vocabulary import logits_divergences
from verl_ext.signals.logit_cap import capped

pytestmark = pytest.mark.usefixtures("process_group")

CAP = 2.0
PASS = {"compute_loss": False, "calculate_entropy": True, "perception_step": 3}


def cap_logits(model):
    """What Gemma's forward does, on another family's model."""
    setattr(model.config.get_text_config(), family(model).logit_cap, CAP)

    def cap(_model, _args, output):
        output.logits = capped(output.logits, CAP)
        return output

    model.register_forward_hook(cap)
    assert logit_cap(model) == CAP


@pytest.fixture(scope="module")
def references(process_group):
    model = family_rows.load("qwen2_5_vl")
    rows = family_rows.rows("qwen2_5_vl", model)
    return rows, [family_rows.refer(row, model) for row in rows]


@pytest.mark.parametrize("response_only", [True, False])
def test_divergences_and_truncated_entropies(references, response_only):
    rows, found_by_transformers = references
    worker = workers.build(
        "+perception=pgpo",
        "perception.methods=[pgpo,tor]",
        "perception.pgpo.divergence=kl",
        f"perception.response_only_logits={response_only}",
        f"actor_rollout_ref.model.path={families.path('qwen2_5_vl')}",
    )
    cap_logits(worker.actor.engine.module)
    output = worker.compute_log_prob(batches.batch(rows, **PASS))
    uncapped = 0.0
    for index, reference in enumerate(found_by_transformers):
        clean, blind = capped(reference.clean, CAP), capped(reference.blind, CAP)
        torch.testing.assert_close(output["visual_kl"][index], logits_divergences(clean, blind).kl, atol=1e-5, rtol=0)
        entropy = truncated_entropy(clean, 0.95)
        torch.testing.assert_close(output["entropy_top_p_0.95"][index], entropy, atol=1e-4, rtol=0)
        uncapped = max(uncapped, (truncated_entropy(reference.clean, 0.95) - entropy).abs().max())
    assert uncapped > 0.1
