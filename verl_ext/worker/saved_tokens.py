# SPDX-License-Identifier: Apache-2.0
"""How many tokens a pass did not compute because another row of the group did."""

from __future__ import annotations

from tensordict import TensorDict

from verl_ext.vocabulary import SAVED_TOKENS


def saved_by_row(output: TensorDict | None) -> TensorDict | None:
    """The output of one of verl's passes with `SAVED_TOKENS` as a plain (B,) field, if it has that.

    What a micro-batch gives verl must be jagged; here it has one value a row.
    """
    if output is not None and SAVED_TOKENS in output:
        output[SAVED_TOKENS] = output[SAVED_TOKENS].values()
    return output
