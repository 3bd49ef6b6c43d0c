# SPDX-License-Identifier: Apache-2.0
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verl_ext.data.easy_vqa import write_easy_vqa

# What others of these runs show for the most part: methods beside each other, trainers, checkpoints.
MORE_RUNS = ("test_comparison.py", "test_every_method.py", "test_frozen_tower.py", "test_soak.py")


def pytest_collection_modifyitems(items):
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.e2e)
            # Longer than its runs may take, so that one that hangs is shown as that.
            item.add_marker(pytest.mark.timeout(1200))
            if item.path.name != "test_main_ppo.py" or "vanilla" in item.fixturenames:
                item.add_marker(pytest.mark.slow)
            if item.path.name == "test_model_families.py" and "qwen3_vl]" not in item.name:
                item.add_marker(pytest.mark.more_models)
            if item.path.name in MORE_RUNS or "colocated" in item.name:
                item.add_marker(pytest.mark.more_runs)
    # Two nodes take the memory of two runs: first, beside tests that need little.
    items.sort(key=lambda item: item.path.name != "test_two_nodes.py")


@pytest.fixture(scope="session")
def easy_vqa(tmp_path_factory):
    """easy-VQA in verl's schema."""
    folder = tmp_path_factory.mktemp("easy_vqa")
    write_easy_vqa(folder, val_size=32)
    return folder


@pytest.fixture(scope="session")
def text_only(easy_vqa, tmp_path_factory):
    """The same questions without their images."""
    folder = tmp_path_factory.mktemp("text_only")
    for name in ("train", "test"):
        rows = pq.read_table(easy_vqa / f"{name}.parquet").to_pylist()
        for row in rows:
            row["images"] = []
            row["prompt"][0]["content"] = row["prompt"][0]["content"].removeprefix("<image>")
        schema = pq.read_schema(easy_vqa / f"{name}.parquet")
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / f"{name}.parquet")
    return folder
