"""``fxpipe crossval``: how good a recipe is, on pictures that had no influence on it."""

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
            click.option(
                "--folds", type=click.IntRange(min=3), default=5, show_default=True,
                help="Parts: one tests, one validates, the others train, in turn.",
            ),
            click.option(
                "--only", multiple=True, type=click.IntRange(min=1), metavar="FOLD",
                help="Train this fold now; repeatable.  [default: all]",
            ),
            click.option("--seed", type=int, default=7, show_default=True, help="Of the parts."),
            click.option(
                "--with-test", is_flag=True,
                help="Let the table's test split take part too; it can then test nothing more.",
            ),
            click.option("--output", type=_PATH, help="Folder.  [default: runs/crossval-STAGE]"),
            click.option("--config", "file", type=_FILE, help="TOML file with settings."),
            click.option(
                "--set", "settings", multiple=True, metavar="KEY=VALUE",
                help="One setting, such as optim.epochs=20; repeatable.",
            ),
            click.option(
                "--allow-leaks", is_flag=True,
                help="Train although the same picture is in two folds, or has two labels.",
            ),
            click.option("--quiet", is_flag=True, help="No progress and no figures by epoch."),
        )
    ):  # fmt: skip
        function = option(function)
    return function


@click.group(name="crossval")
def command() -> None:
    """Cross-validate a recipe by group; the same command goes on where it was stopped."""


@command.command(name="region")
@click.option("--init", help="hub, none, or a safetensors file: the setting model.init.")
@_shared
def region(init: str | None, settings: tuple[str, ...], **options: Any) -> None:
    """Cross-validate the router with its auxiliary fracture output."""
    if init is not None:
        settings = (*settings, f"model.init='{init}'")
    _crossval("region", settings=settings, **options)


@command.command(name="fracture")
@click.option("--region", "name", type=click.Choice(REGIONS), required=True)
@click.option(
    "--from", "parents", type=_PATH, default=Path("runs/crossval-region"), show_default=True,
    help="Cross-validation of the region stage: each fold starts from its network.",
)  # fmt: skip
@_shared
def fracture(name: str, parents: Path, settings: tuple[str, ...], **options: Any) -> None:
    """Cross-validate one region's specialist."""
    settings = (*settings, f"region='{name}'", f"region_run='{parents}'")
    _crossval(f"fracture-{name}", settings=settings, **options)


def _crossval(
    stage: str, index: Path, folds: int, only: tuple[int, ...], seed: int, with_test: bool,
    output: Path | None, file: Path | None, settings: tuple[str, ...],
    allow_leaks: bool, quiet: bool,
) -> None:  # fmt: skip
    folder = output or Path("runs") / f"crossval-{stage}"
    with needs("train"):
        from stages.config import FractureConfig, RegionConfig
        from stages.crossval import crossval_fracture, crossval_region, fold_tables
        from stages.data.gate import refuse_leaks
        from stages.data.index import read_index, read_table
        from stages.report import describe_crossval
    # After the imports: Lightning sets its loggers up when it is imported.
    log.configure(logging.WARNING if quiet else logging.INFO)
    chosen = only or tuple(range(1, folds + 1))
    if max(chosen) > folds:
        raise click.UsageError(f"--only {max(chosen)}: there are {folds} folds")
    config: RegionConfig | FractureConfig = (
        load(RegionConfig, file, settings)
        if stage == "region"
        else load(FractureConfig, file, settings)
    )
    table = read_table(index) if allow_leaks else read_index(index)
    tables = fold_tables(table, folds, seed, ("train", "val", *(("test",) if with_test else ())))
    try:
        with on_stderr(len(table.samples), quiet, "pictures") as progress:
            refuse_leaks(tables, config.data.cache, allow_leaks, progress)
        with on_stderr(None, quiet, "batches") as progress:
            if isinstance(config, RegionConfig):
                crossval_region(folder, tables, config, chosen, progress)
            else:
                crossval_fracture(folder, tables, config, chosen, progress)
    except KeyboardInterrupt:
        click.echo(f"\ninterrupted; the same command goes on ({folder})", err=True)
        raise
    click.echo(describe_crossval(folder))
