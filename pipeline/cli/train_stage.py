"""``fxpipe train-stage``: one training run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .. import log
from ..config import load
from ..domain import REGIONS
from ..progress import on_stderr
from .extras import needs
from .run import default_weights

_FILE = click.Path(path_type=Path, dir_okay=False)
_PATH = click.Path(path_type=Path)


def _shared(function: Callable[..., None]) -> Callable[..., None]:
    """The options that both stages take."""
    for option in reversed(
        (
            click.option(
                "--index", type=_FILE, default=Path("index.csv"), show_default=True,
                help="Table made by `fxpipe index`.",
            ),
            click.option("--output", type=_PATH, help="Run folder.  [default: runs/STAGE]"),
            click.option("--config", "file", type=_FILE, help="TOML file with settings."),
            click.option(
                "--set", "settings", multiple=True, metavar="KEY=VALUE",
                help="One setting, such as optim.epochs=20; repeatable.",
            ),
            click.option(
                "--allow-leaks", is_flag=True,
                help="Train although the same picture is in two splits, or has two labels.",
            ),
            click.option("--resume", is_flag=True, help="Go on with the run in --output."),
            click.option("--quiet", is_flag=True, help="No progress and no figures by epoch."),
        )
    ):  # fmt: skip
        function = option(function)
    return function


@click.group(name="train-stage")
def command() -> None:
    """Train one stage on an index: first the region stage, then a specialist for each region."""


@command.command(name="region")
@click.option(
    "--init", help="hub, none, shipped, a safetensors file or a run: the setting model.init."
)
@_shared
def region(init: str | None, settings: tuple[str, ...], **options: Any) -> None:
    """Train the router, and with it the trunk that every specialist shares.

    The whole network learns from pictures of all regions, with an auxiliary fracture output.
    """
    if init is not None:
        settings = (*settings, f"model.init={_quoted(_named(init))}")
    _train("region", settings=settings, **options)


@command.command(name="fracture")
@click.option("--region", "name", type=click.Choice(REGIONS), required=True)
@click.option(
    "--from",
    "region_run",
    type=_PATH,
    help="Region run, or shipped: go on with a shipped specialist.  [default: runs/region]",
)
@_shared
def fracture(name: str, region_run: Path | None, settings: tuple[str, ...], **options: Any) -> None:
    """Fine-tune one region's specialist from the network of a region run.

    What lies before train.trainable_from is frozen: the trunk that all stages share.
    """
    settings = (*settings, f"region={_quoted(name)}")
    if region_run is not None:
        settings = (*settings, f"region_run={_quoted(_named(str(region_run)))}")
    _train(f"fracture-{name}", settings=settings, **options)


def _named(source: str) -> str:
    """The weights folder in use for the word shipped, anything else as it is."""
    return str(default_weights()) if source == "shipped" else source


def _quoted(value: str) -> str:
    """A TOML literal string."""
    return f"'{value}'"


def _train(
    stage: str, index: Path, output: Path | None, file: Path | None, settings: tuple[str, ...],
    allow_leaks: bool, resume: bool, quiet: bool,
) -> None:  # fmt: skip
    run = output or Path("runs") / stage
    with needs("train"):
        from stages.config import FractureConfig, RegionConfig
        from stages.data.gate import refuse_leaks
        from stages.data.index import read_index, read_table
        from stages.recipe import train_fracture, train_region
        from stages.report import describe_result
    # After the imports: Lightning sets its loggers up when it is imported.
    log.configure(logging.WARNING if quiet else logging.INFO)
    try:
        config: RegionConfig | FractureConfig = (
            load(RegionConfig, file, settings)
            if stage == "region"
            else load(FractureConfig, file, settings)
        )
        table = read_table(index) if allow_leaks else read_index(index)
        with on_stderr(len(table.samples), quiet, "pictures") as progress:
            refuse_leaks([table], config.data.cache, allow_leaks, progress)
        with on_stderr(None, quiet, "batches") as progress:
            if isinstance(config, RegionConfig):
                train_region(run, table, config, resume, progress)
            else:
                train_fracture(run, table, config, resume, progress)
    except KeyboardInterrupt:
        click.echo(f"\ninterrupted; go on with: the same command and --resume ({run})", err=True)
        raise
    click.echo(describe_result(run))
