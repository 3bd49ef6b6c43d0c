# SPDX-License-Identifier: Apache-2.0
"""The command ``verl-ext``. A command's module is imported when it is asked for, so that ``--help`` is quick."""

from importlib import import_module
from typing import Any

import click

from verl_ext.errors import ConfigurationError, DataError

COMMANDS = {
    "doctor": "Say whether this installation, and a configuration, can train.",
    "validate": "Compose and check a configuration as main_ppo would get it, without a GPU.",
    "data": "Prepare data sets in verl's parquet schema.",
    "report": "Make one offline page, and figures, of training runs.",
}
"""Modules of `verl_ext.commands` by command, with their line of help."""


class _Commands(click.Group):
    """Imports the module of a command, and prints the package's own errors as one line with exit status 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        return import_module(f"verl_ext.commands.{cmd_name}").command if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except (ConfigurationError, DataError) as error:
            raise click.ClickException(" ".join(str(error).split())) from error
        except BrokenPipeError:
            raise  # click ends quietly
        except OSError as error:
            name = "" if error.filename is None else f": {error.filename}"
            raise click.ClickException(f"{error.strerror or error}{name}") from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Perception-aware reinforcement learning of vision-language models, for verl."""


if __name__ == "__main__":
    main()
