"""``fxpipe cards``: model cards beside the bundles."""

from __future__ import annotations

from pathlib import Path

import click

from .. import logging_setup
from ._extras import needs
from ._paths import PathOption


@click.command(name="cards")
@click.option(
    "--weights", type=PathOption(file_okay=False), default=Path("weights"),
    show_default=True, help="Weights folder.",
)  # fmt: skip
@click.option(
    "--evaluation", type=PathOption(dir_okay=False),
    help="An evaluation.json of these very weights, for the figures.  "
    "[default: the one that is kept beside the manifest]",
)  # fmt: skip
@click.option(
    "--single-look", type=PathOption(dir_okay=False),
    help="Likewise one with `--set looks=1`, for specialists that look closer.  [default: the one "
    "that is kept]",
)  # fmt: skip
@click.option(
    "--tried", multiple=True, type=PathOption(file_okay=False),
    help="Folder of `fxpipe crossval`, for the table of what was tried; repeatable, the first is "
    "the baseline.  [default: the table that is kept beside the manifest]",
)  # fmt: skip
def command(
    weights: Path, evaluation: Path | None, single_look: Path | None, tried: tuple[Path, ...]
) -> None:
    """Write a model card beside each bundle, and the README.md that gathers them.

    The cards are made from the contracts in the bundles, an evaluation and cross-validations;
    NOTICE.md in the weights folder, if there is one, ends each of them. Figures and the table of
    what was tried are kept: to list a changed NOTICE.md, nothing needs to be named.
    """
    logging_setup.configure()
    with needs("evaluate"):
        from stages.bundles.model_cards import write_cards
    rows = None
    if tried:
        with needs("train"):
            from stages.experiments.crossval_table import side_by_side
        rows = side_by_side(tried)
    for path in write_cards(weights, evaluation, rows, single_look):
        click.echo(path)
