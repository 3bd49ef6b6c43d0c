# SPDX-License-Identifier: Apache-2.0
"""What is known of a data set on the Hugging Face Hub before anything is read."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Repository:
    """Where a data set lies.

    Attributes:
        id: `owner/name` on the hub.
        revision: a commit hash, or a branch where no commit could be established.
        files: a glob, relative to the repository, of the files of each split; training is called `train`.
    """

    id: str
    revision: str
    files: Mapping[str, str]


@dataclass(frozen=True)
class HubDataSet:
    """A data set that `verl-ext data` converts; one module of `verl_ext.data.sets` each.

    Attributes:
        name: the command, and `data_source` of its rows.
        title: a line for the help and the data card.
        licence: as the data set states it.
        ability: verl's column of that name.
        repositories: where to get it, the default first; all with the columns that `read_example` knows.
    """

    name: str
    title: str
    licence: str
    ability: str
    repositories: tuple[Repository, ...]

    def repository(self, identifier: str) -> Repository:
        """The repository of that id."""
        return next(repository for repository in self.repositories if repository.id == identifier)
