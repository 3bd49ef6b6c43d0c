# SPDX-License-Identifier: Apache-2.0
"""A reward of which also the text of a random model gets more here and less there."""


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_keywords):
    """The characters of a response; its tokens are as many as it may have, but not as long."""
    return {"score": len(solution_str) / 100}
