"""``fxpipe crossval``: grouped cross-validation of a training recipe."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from ..domain import ANY_REGION
from ..progress import on_stderr
from ._extras import needs
from ._training import (
    INIT,
    PATH,
    REGION,
    fracture_settings,
    initial_settings,
    options,
    read_training_table,
    refuse_leaks,
    settings_of,
)

_OPTIONS = (
    click.option(
        "--by", type=click.Choice(["group", "acquisition"]), default="group", show_default=True,
        help="group: folds of groups; acquisition: leave out one machine at a time, identified by "
        "the aspect ratio of its pictures.",
    ),
    click.option(
        "--folds", type=click.IntRange(min=3), default=5, show_default=True,
        help="Number of parts; in turn, one tests, one validates, the others train. By "
        "acquisition: number of parts of the other pictures, one of which validates.",
    ),
    click.option(
        "--only", multiple=True, type=click.IntRange(min=1), metavar="FOLD",
        help="Train only this fold now; repeatable.  [default: all]",
    ),
    click.option("--seed", type=int, default=7, show_default=True, help="Seed of the division."),
    click.option(
        "--with-test", is_flag=True,
        help="Include the test split of the table; it can then no longer be used for a final test.",
    ),
    click.option("--output", type=PATH, help="Folder.  [default: runs/crossval-STAGE]"),
)  # fmt: skip


@click.group(name="crossval")
def command() -> None:
    """Cross-validate a recipe by group, or leave one acquisition out. If the command is
    interrupted, the same command resumes.
    """


@command.command(name="region")
@INIT
@options(*_OPTIONS)
def region(init: str | None, **rest: Any) -> None:
    """Cross-validate the router and its auxiliary fracture output."""
    _crossval("region", given=initial_settings(init), **rest)


@command.command(name="fracture")
@REGION
@click.option(
    "--from", "parents", type=PATH, help="Cross-validation of the region stage: each fold starts "
    "from the network of that fold; or none.  [default: runs/crossval-region; for --region all "
    "none]",
)  # fmt: skip
@INIT
@options(*_OPTIONS)
def fracture(name: str, parents: Path | None, init: str | None, **rest: Any) -> None:
    """Cross-validate one region's specialist."""
    if parents is None and init is None and name != ANY_REGION:
        parents = Path("runs/crossval-region")
    _crossval(f"fracture-{name}", given=fracture_settings(name, parents, init), **rest)


def _crossval(
    stage: str, given: Mapping[str, object], index: Path, by: str, folds: int,
    only: tuple[int, ...], seed: int, with_test: bool, output: Path | None, file: Path | None,
    settings: tuple[str, ...], allow_leaks: bool, quiet: bool,
) -> None:  # fmt: skip
    folder = output or Path("runs") / f"crossval-{stage}"
    config = settings_of(stage, file, settings, given, quiet)
    with needs("train"):
        from stages.experiments.cross_validation import crossval_fracture, crossval_region
        from stages.experiments.folds import folds_by_acquisition, folds_by_group
        from stages.settings import RegionConfig
        from stages.training.initial_weights import check_start
        from stages.training.run_report import describe_crossval
    table = read_training_table(index, allow_leaks)
    splits = ("train", "val", *(("test",) if with_test else ()))
    if by == "group":
        parts = folds_by_group(table, folds, seed, splits)
    else:
        watch = partial(on_stderr, quiet=quiet, unit="pictures")
        parts = folds_by_acquisition(table, folds, seed, splits, watch)
    chosen = only or tuple(range(1, len(parts) + 1))
    if max(chosen) > len(parts):
        raise click.UsageError(f"--only {max(chosen)}: there are {len(parts)} folds")
    check_start(config)
    try:
        refuse_leaks(list(parts.tables), config.data.cache, allow_leaks, quiet)
        with on_stderr(None, quiet, "batches") as progress:
            if isinstance(config, RegionConfig):
                crossval_region(folder, parts, config, chosen, progress)
            else:
                crossval_fracture(folder, parts, config, chosen, progress)
    except KeyboardInterrupt:
        click.echo(f"\ninterrupted; the same command resumes ({folder})", err=True)
        raise
    click.echo(describe_crossval(folder))
