# SPDX-License-Identifier: Apache-2.0
"""`verl-ext validate`: would main_ppo accept these arguments? Heavy imports stay inside the functions."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from omegaconf import DictConfig


@click.command("validate")
@click.option("--config-path", default=None, help="As main_ppo's: an absolute path of a folder with configurations.")
@click.option("--config-name", default="ppo_trainer", help="As main_ppo's.")
@click.option("--print", "show", is_flag=True, help="Also print the whole configuration as resolved YAML.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def command(config_path: str | None, config_name: str, show: bool, overrides: tuple[str, ...]) -> None:
    """Compose main_ppo's configuration from the same arguments and check it, without a GPU and without Ray.

    \b
    verl-ext validate +perception=pgpo actor_rollout_ref.rollout.name=vllm \\
        actor_rollout_ref.actor.use_dynamic_bsz=True trainer.n_gpus_per_node=8
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from verl_ext.doctor.progress import Progress

    progress = Progress(command="validate")
    with progress.doing("loading verl"):
        from verl_ext.configuration.compose import compose_with_choices

        config, choices = compose_with_choices(overrides, config_path, config_name)
    try:
        with progress.doing("checking"):
            check(config, overrides)
        click.echo(summary(config, choices))
        if show:
            click.echo(OmegaConf.to_yaml(config, resolve=True), nl=False)
    except OmegaConfBaseException as error:
        raise click.ClickException(" ".join(str(error).split())) from error


def check(config: DictConfig, overrides: Sequence[str] = ()) -> None:
    """The checks of the `perception` section, or of trainer and estimator without one, and verl's own.

    Raises:
        ConfigurationError: a key does not fit, or nothing says what generates.
        click.ClickException: verl refuses the configuration; its message.
    """
    from omegaconf import OmegaConf

    from verl_ext.configuration.validation import validate, validate_without_method
    from verl_ext.errors import ConfigurationError

    if OmegaConf.is_missing(config.actor_rollout_ref.rollout, "name"):
        key = "actor_rollout_ref.rollout.name"
        raise ConfigurationError(key=key, value="???", remedy=f"verl has no default; write {key}=vllm")
    if "perception" in config:
        validate(config, overrides)
    else:
        validate_without_method(config)
    _check_verl(config)


def _check_verl(config: DictConfig) -> None:
    """What main_ppo itself checks before it starts Ray: batch sizes against ranks, mini- and micro-batches."""
    from verl_ext.doctor.checks import Status
    from verl_ext.doctor.configuration import verls_checks
    from verl_ext.doctor.subject import Subject

    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (check,) = verls_checks(Subject(config=config))
    if check.status is Status.FAILURE:
        raise click.ClickException(f"verl refuses it: {check.found}")


def summary(config: DictConfig, choices: Mapping[str, str | None]) -> str:
    """One line: method, recipe, trainer, model, engine and what generates."""
    methods = "+".join(config.perception.methods) if "perception" in config else "none"
    actor = config.actor_rollout_ref
    return (
        f"valid: method {methods}, recipe {choices.get('recipe') or 'none'}, "
        f"trainer {config.trainer.v1.trainer_mode}, model {actor.model.path}, engine {actor.actor.strategy}, "
        f"rollout {actor.rollout.name}"
    )
