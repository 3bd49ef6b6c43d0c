# SPDX-License-Identifier: Apache-2.0
"""`verl-ext doctor`: does this installation work, and can a configuration train?"""

import click


@click.command(
    "doctor",
    epilog="Example: verl-ext doctor +perception=pgpo data.train_files=train.parquet "
    "actor_rollout_ref.model.path=Qwen/Qwen2.5-VL-7B-Instruct",
)
@click.argument("overrides", nargs=-1)
@click.option("--config-path", help="As main_ppo's; verl's own configuration by default.", show_default=False)
@click.option("--config-name", default="ppo_trainer", help="As main_ppo's.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--verbose", is_flag=True, help="Let what is checked print to stderr, tracebacks included.")
@click.pass_context
def command(
    ctx: click.Context,
    overrides: tuple[str, ...],
    config_path: str | None,
    config_name: str,
    as_json: bool,
    verbose: bool,
) -> None:
    """Check this installation and, with OVERRIDES as main_ppo takes them, whether that configuration can train.

    The exit status is 0 if nothing failed, 1 if a check failed, 2 if the command was not understood.
    """
    from verl_ext.doctor import rendering
    from verl_ext.doctor.checks import Check, Status
    from verl_ext.doctor.diagnosis import diagnose
    from verl_ext.doctor.progress import Progress
    from verl_ext.doctor.subject import Subject

    _refuse_unreadable(overrides)
    subject = Subject(overrides=overrides, config_path=config_path, config_name=config_name)
    sections: dict[str, list[Check]] = {}
    for title, checks in diagnose(subject, Progress(verbose)):
        sections[title] = checks
        if not as_json:
            click.echo(rendering.section_text(title, checks) + "\n")
    every = [check for checks in sections.values() for check in checks]
    click.echo(rendering.as_json(sections) if as_json else rendering.summary_text(every))
    ctx.exit(int(any(check.status is Status.FAILURE for check in every)))


def _refuse_unreadable(overrides: tuple[str, ...]) -> None:
    """Overrides that Hydra cannot even read are bad usage."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    for override in overrides:
        try:
            OverridesParser.create().parse_overrides([override])
        except HydraException as error:
            message = " ".join(str(error).split())
            raise click.UsageError(f"{override}: not an override such as +perception=pgpo ({message})") from error
