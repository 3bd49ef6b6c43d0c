# SPDX-License-Identifier: Apache-2.0
"""ViRL39K as PAPO processed it, which VGPO, VPPO and others train on as well.

Schema, from the ``dataset_info`` of its card: ``images`` (list of images), ``problem`` and ``answer`` (text); one
split, train. The original, ``TIGER-Lab/ViRL39K``, has the columns ``question``, ``answer`` (boxed), ``qid`` and
``image`` (list of paths below the unpacked ``images.zip``), which are understood as well.
"""

from verl_ext.data.data_set import HubDataSet, Repository

DATA_SET = HubDataSet(
    name="virl39k",
    title="ViRL39K: 38,870 verifiable questions about charts, diagrams, documents, maths and science",
    licence="none stated on its card; the original, TIGER-Lab/ViRL39K, states MIT",
    ability="math",
    repositories=(
        Repository(
            id="PAPOGalaxy/PAPO_ViRL39K_train",
            revision="ff6996d5cdd0e5fc12c01f3dab96f1af37453ceb",
            files={"train": "data/train-*.parquet"},
        ),
    ),
)
