# SPDX-License-Identifier: Apache-2.0
"""Puts this package's configuration groups (`perception`, `platform`) on the search path of every Hydra command."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class VerlExtSearchPathPlugin(SearchPathPlugin):
    """Makes `+perception=<method>` resolve; it adds nothing to a configuration that does not ask for it."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="verl-ext", path="pkg://verl_ext.config")
