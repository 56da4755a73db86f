"""``fxpipe cards``: model cards of the bundles."""

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
    help="An evaluation.json of exactly these weights, for the figures.  "
    "[default: the one stored next to the manifest]",
)  # fmt: skip
@click.option(
    "--single-look", type=PathOption(dir_okay=False),
    help="The same with `--set looks=1`, for specialists that look closer.  [default: the stored "
    "one]",
)  # fmt: skip
@click.option(
    "--tried", multiple=True, type=PathOption(file_okay=False),
    help="Folder of `fxpipe crossval`, for the table of tried recipes; repeatable, the first is "
    "the baseline.  [default: the table stored next to the manifest]",
)  # fmt: skip
def command(
    weights: Path, evaluation: Path | None, single_look: Path | None, tried: tuple[Path, ...]
) -> None:
    """Write a model card next to each bundle, and a README.md that combines them.

    The cards are made from the contracts in the bundles, an evaluation and cross-validations. If
    the weights folder has a NOTICE.md, each card ends with it. Figures and the table of tried
    recipes are stored: to list a changed NOTICE.md, run the command without options.
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
