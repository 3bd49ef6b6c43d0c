# SPDX-License-Identifier: Apache-2.0
"""MMK12 (from MM-Eureka), whose test split PAPO and its successors validate on.

Schema of ``FanqingM/MMK12``: ``id``, ``question``, ``answer``, ``subject`` (text) and ``image`` ({bytes, path});
splits train and test, the latter with the choices inside the question. ``PAPOGalaxy/PAPO_MMK12_test`` is PAPO's copy
of the test split with ``images`` (list), ``problem`` and ``answer``, in a file that is called train. Both are read off
public code that loads them; no commit of the second could be established.
"""

from verl_ext.data.data_set import HubDataSet, Repository

DATA_SET = HubDataSet(
    name="mmk12",
    title="MMK12: 15,616 maths problems for training, 2,000 of four school subjects for testing",
    licence="Apache-2.0, as its repository states",
    ability="math",
    repositories=(
        Repository(
            id="FanqingM/MMK12",
            revision="372a609268ea79b5e78d90ab173e02c37b486163",
            files={"train": "data/train-*.parquet", "test": "data/test-*.parquet"},
        ),
        Repository(
            id="PAPOGalaxy/PAPO_MMK12_test",
            revision="main",
            files={"test": "data/train-*.parquet"},
        ),
    ),
)
