"""``fxpipe ensemble``: several fracture bundles made into one specialist."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from .. import logging_setup
from ..config import RunConfig, load
from ..domain import ANY_REGION, REGIONS
from ..progress import on_stderr
from ._extras import needs
from ._paths import PathOption
from .calibrate import SENSITIVITY, SPECIFICITY, SPLIT, STUDY_BY, tell


@click.command(name="ensemble")
@click.option(
    "--region", type=click.Choice((*REGIONS, ANY_REGION)), required=True,
    help="Whose specialist the ensemble becomes.",
)  # fmt: skip
@click.option(
    "--member", "members", multiple=True, required=True, metavar="WEIGHTS[:BUNDLE]",
    help="A weights folder, and which of its fracture bundles (default: the specialist of the "
    "region); twice or more.",
)  # fmt: skip
@click.option(
    "--index", type=PathOption(dir_okay=False), default=Path("index.csv"),
    show_default=True, help="Table with labelled pictures that no member was trained on.",
)  # fmt: skip
@SPLIT
@click.option(
    "--weights", type=PathOption(file_okay=False),
    help="Folder that gives everything else; it stays as it is.  [default: the first member's]",
)  # fmt: skip
@click.option(
    "--output", type=PathOption(file_okay=False),
    default=Path("weights-ensemble"), show_default=True, help="New weights folder.",
)  # fmt: skip
@SENSITIVITY
@SPECIFICITY
@STUDY_BY
@click.option("--quiet", is_flag=True, help="No progress.")
def command(
    region: str, members: tuple[str, ...], index: Path, split: str, weights: Path | None,
    output: Path, sensitivity: float, specificity: float, study_by: str, quiet: bool,
) -> None:  # fmt: skip
    """Make one specialist of several: the mean of their calibrated probabilities.

    Members may differ in architecture, size and trunk, but tell the same of the same region. The
    thresholds of the ensemble come from the pictures of --index, those of its members play no
    part.
    """
    logging_setup.configure(logging.WARNING if quiet else logging.INFO)
    with needs("evaluate"):
        from stages.data.index import read_index
        from stages.export.ensemble import Order, Pick, make_ensemble
        from stages.export.recalibrate import Wanted, labelled
    table = read_index(index)
    order = Order(region, tuple(Pick(*_parts(member)) for member in members), weights)
    wanted = Wanted(sensitivity, specificity, split, True, study_by)  # type: ignore[arg-type]
    rows = len(labelled(table, wanted.split, region))
    with on_stderr(rows, quiet, "pictures") as progress:
        made = make_ensemble(table, order, output, wanted, load(RunConfig), progress)
    click.echo(f"{made.name}: the mean of {len(made.members)} members")
    for name, source in made.members.items():
        click.echo(f"  {name}: {source}")
    if made.no_heatmap:
        click.echo(f"no heatmap: {made.no_heatmap}")
    tell(region, made.calibrated)
    click.echo(
        f"{output}: written in {', '.join(made.precisions)}; use it with "
        f"`fxpipe run --weights {output}`"
    )


def _parts(member: str) -> tuple[Path, str | None]:
    """``WEIGHTS[:BUNDLE]`` as folder and name; a folder with a colon in its name is one."""
    folder, colon, name = member.rpartition(":")
    if not colon or Path(member).is_dir():
        return Path(member), None
    return Path(folder), name
