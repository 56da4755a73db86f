"""``fxpipe train-stage``: one training run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ..progress import on_stderr
from ._extras import needs
from ._training import (
    FROM,
    INIT,
    PATH,
    REGION,
    fracture_settings,
    initial_settings,
    options,
    read_training_table,
    refuse_leaks,
    settings_of,
    warn_loudly,
)

_OPTIONS = (
    click.option("--output", type=PATH, help="Run folder.  [default: runs/STAGE]"),
    click.option("--resume", is_flag=True, help="Resume the run in --output."),
)


@click.group(name="train-stage")
def command() -> None:
    """Train one stage on a table: first the region stage, then a specialist for each region."""


@command.command(name="region")
@INIT
@options(*_OPTIONS)
def region(init: str | None, **rest: Any) -> None:
    """Train the router, and with it the trunk that all specialists share.

    The whole network is trained on pictures of all regions, with an auxiliary fracture output.
    """
    _train("region", given=initial_settings(init), **rest)


@command.command(name="fracture")
@REGION
@FROM
@INIT
@options(*_OPTIONS)
def fracture(name: str, source: Path | None, init: str | None, **rest: Any) -> None:
    """Fine-tune the specialist of one region from the network of a region run.

    All blocks before train.trainable_from are frozen: the trunk that all stages share. With --init
    the specialist is an independent network. So is --region all, which is trained on every labelled
    picture and is meant for data without regions.
    """
    _train(f"fracture-{name}", given=fracture_settings(name, source, init), **rest)


def _train(
    stage: str, given: Mapping[str, object], index: Path, output: Path | None, file: Path | None,
    settings: tuple[str, ...], allow_leaks: bool, resume: bool, quiet: bool,
) -> None:  # fmt: skip
    run = output or Path("runs") / stage
    config = settings_of(stage, file, settings, given, quiet)
    with needs("train"):
        from stages.settings import RegionConfig
        from stages.training.initial_weights import check_start
        from stages.training.run import train_fracture, train_region
        from stages.training.run_report import describe_result, warnings_of
    table = read_training_table(index, allow_leaks)
    check_start(config)
    try:
        refuse_leaks([table], config.data.cache, allow_leaks, quiet)
        with on_stderr(None, quiet, "batches") as progress:
            if isinstance(config, RegionConfig):
                train_region(run, table, config, resume, progress)
            else:
                train_fracture(run, table, config, resume, progress)
    except KeyboardInterrupt:
        click.echo(f"\ninterrupted; resume with the same command and --resume ({run})", err=True)
        raise
    click.echo(describe_result(run))
    warn_loudly(warnings_of(run))
