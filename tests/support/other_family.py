# SPDX-License-Identifier: Apache-2.0
"""What another package would write to make its model known."""

from verl_ext.models.family import Family
from verl_ext.models.registry import register_family

register_family(Family(model_type="other_vl", name="Other-VL"))
