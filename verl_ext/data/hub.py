# SPDX-License-Identifier: Apache-2.0
"""Downloads from the Hugging Face Hub, into its usual cache."""

import shlex
from pathlib import Path

from verl_ext.data.data_set import HubDataSet, Repository
from verl_ext.errors import DataError


def fetch(data_set: HubDataSet, repository: Repository, revision: str) -> tuple[Path, str]:
    """The folder of a repository's data files at a revision, and the commit that it names.

    Raises:
        DataError: neither the hub nor its cache has them; the message says how to get them elsewhere.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError  # of httpx or requests, whichever its version uses

    try:
        # Files rather than `datasets.load_dataset`: rows then have one reader, wherever the files came from, no second
        # copy of them is made, and the commit is known.
        folder = snapshot_download(
            repository.id, repo_type="dataset", revision=revision, allow_patterns=list(repository.files.values())
        )
    except (OSError, ValueError, HTTPError) as error:
        raise DataError(_advice(data_set, repository, revision, error)) from error
    return Path(folder), Path(folder).name


def _advice(data_set: HubDataSet, repository: Repository, revision: str, error: Exception) -> str:
    download = ["hf", "download", repository.id, "--repo-type", "dataset", "--revision", revision]
    convert = ["verl-ext", "data", data_set.name, "--source", data_set.name]
    if repository != data_set.repositories[0]:
        convert += ["--repo", repository.id]
    files = ", ".join(repository.files.values())
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return (
        f"{repository.id} ({files}) cannot be fetched: {reason}. Where there is a network, run "
        f"`{shlex.join([*download, '--local-dir', data_set.name])}`, then `{shlex.join(convert)}`"
    )
