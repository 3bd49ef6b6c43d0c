# SPDX-License-Identifier: Apache-2.0
"""Geometry3K as EasyR1 and verl use it.

Schema, from verl's ``examples/data_preprocess/geo3k.py`` and the data set viewer: ``images`` (list of {bytes, path}),
``problem`` (text with ``<image>``) and ``answer`` (text, often LaTeX); splits train, validation and test.
"""

from verl_ext.data.data_set import HubDataSet, Repository

DATA_SET = HubDataSet(
    name="geometry3k",
    title="Geometry3K: 3,002 geometry problems with a figure each",
    licence="MIT, as its card states",
    ability="math",
    repositories=(
        Repository(
            id="hiyouga/geometry3k",
            revision="fd21e533e1e50d0662a2bf7b223e60511bd5f8b7",
            files={
                "train": "data/train-*.parquet",
                "validation": "data/validation-*.parquet",
                "test": "data/test-*.parquet",
            },
        ),
    ),
)
