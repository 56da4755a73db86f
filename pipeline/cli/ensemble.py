"""``fxpipe ensemble``: combines several fracture bundles into one specialist."""

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
from .calibrate import SENSITIVITY, SPECIFICITY, SPLIT, STUDY_BY, print_calibration


@click.command(name="ensemble")
@click.option(
    "--region", type=click.Choice((*REGIONS, ANY_REGION)), required=True,
    help="Region of the ensemble.",
)  # fmt: skip
@click.option(
    "--member", "members", multiple=True, required=True, metavar="WEIGHTS[:BUNDLE]",
    help="A weights folder and one of its fracture bundles (default: the specialist of the "
    "region); give it at least twice.",
)  # fmt: skip
@click.option(
    "--index", type=PathOption(dir_okay=False), default=Path("index.csv"),
    show_default=True, help="Table with labelled pictures that no member was trained on.",
)  # fmt: skip
@SPLIT
@click.option(
    "--weights", type=PathOption(file_okay=False),
    help="Folder with all other bundles; it is not changed.  [default: the first member's]",
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
    """Combine several specialists into one: the mean of their calibrated probabilities.

    Members may differ in architecture, input size and trunk, but must have the same target and
    region. The thresholds of the ensemble are fitted to the pictures of --index; those of its
    members are not used.
    """
    logging_setup.configure(logging.WARNING if quiet else logging.INFO)
    with needs("evaluate"):
        from stages.data.index import read_index
        from stages.export.ensemble import Order, Pick, make_ensemble
        from stages.export.recalibrate import Wanted, labelled
    table = read_index(index)
    order = Order(region, tuple(Pick(*_parts(member)) for member in members), weights)
    request = Wanted(sensitivity, specificity, split, True, study_by)  # type: ignore[arg-type]
    rows = len(labelled(table, request.split, region))
    with on_stderr(rows, quiet, "pictures") as progress:
        result = make_ensemble(table, order, output, request, load(RunConfig), progress)
    click.echo(f"{result.name}: the mean of {len(result.members)} members")
    for name, source in result.members.items():
        click.echo(f"  {name}: {source}")
    if result.no_heatmap:
        click.echo(f"no heatmap: {result.no_heatmap}")
    print_calibration(region, result.calibrated)
    click.echo(
        f"{output}: written in {', '.join(result.precisions)}; use it with "
        f"`fxpipe run --weights {output}`"
    )


def _parts(member: str) -> tuple[Path, str | None]:
    """Split ``WEIGHTS[:BUNDLE]`` into folder and name; an existing folder is not split."""
    folder, colon, name = member.rpartition(":")
    if not colon or Path(member).is_dir():
        return Path(member), None
    return Path(folder), name
