"""``fxpipe calibrate``: thresholds from the user's validation pictures."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import logging_setup
from ..bundle import StoredPoint
from ..config import RunConfig, load
from ..progress import on_stderr
from ._extras import needs
from ._paths import PathOption, only_one
from ._weights_folder import default_weights

if TYPE_CHECKING:
    from stages.export.recalibrate import Recalibrated

FRACTION = click.FloatRange(0, 1, min_open=True, max_open=True)
SPLIT = click.option(
    "--split", type=click.Choice(("val", "test", "train")), default="val", show_default=True,
    help="Rows of the table to use.",
)  # fmt: skip
SENSITIVITY = click.option(
    "--sensitivity", type=FRACTION, default=0.95, show_default=True,
    help="Target of the operating point sensitive.",
)  # fmt: skip
SPECIFICITY = click.option(
    "--specificity", type=FRACTION, default=0.95, show_default=True,
    help="Target of the operating point specific.",
)  # fmt: skip
STUDY_BY = click.option(
    "--study-by", type=click.Choice(("study", "group")), default="study", show_default=True,
    help="Column that identifies the study of a picture; use group if a table has no studies.",
)  # fmt: skip


@click.command(name="calibrate")
@click.option(
    "--input", "index", type=PathOption(dir_okay=False), default=[Path("index.csv")],
    show_default=True, multiple=True, callback=only_one,
    help="Table with labelled pictures that no network was trained on.",
)  # fmt: skip
@SPLIT
@click.option(
    "--weights", type=PathOption(file_okay=False),
    help="Folder to start from; it is not changed.  [env: FXPIPE_WEIGHTS; default: ./weights]",
    envvar="FXPIPE_WEIGHTS",
)  # fmt: skip
@click.option(
    "--output", type=PathOption(file_okay=False),
    default=Path("weights-calibrated"), show_default=True, help="New weights folder.",
)  # fmt: skip
@SENSITIVITY
@SPECIFICITY
@click.option(
    "--points-only", is_flag=True, help="Change only the thresholds, not the probabilities."
)
@STUDY_BY
@click.option("--quiet", is_flag=True, help="No progress.")
def command(
    index: Path, split: str, weights: Path | None, output: Path, sensitivity: float,
    specificity: float, points_only: bool, study_by: str, quiet: bool,
) -> None:  # fmt: skip
    """Set calibration and operating points from your own pictures, without training.

    The table is one of `fxpipe index`, or any CSV file with its columns. The pictures must not have
    been used in training. Figures for publication must come from a third set of pictures.
    """
    logging_setup.configure(logging.WARNING if quiet else logging.INFO)
    with needs("evaluate"):
        from stages.data.index import read_index
        from stages.export.recalibrate import Wanted, recalibrate
    table = read_index(index)
    request = Wanted(sensitivity, specificity, split, points_only, study_by)  # type: ignore[arg-type]
    rows = sum(sample.label is not None for sample in table.samples if sample.split == split)
    with on_stderr(rows, quiet, "pictures") as progress:
        calibrated = recalibrate(
            table, weights or default_weights(), output, request, load(RunConfig), progress
        )
    for region, new in calibrated.items():
        print_calibration(region, new)
    click.echo(f"{output}: written; use it with `fxpipe run --weights {output}`")


def print_calibration(region: str, new: Recalibrated) -> None:
    """Print the calibration and the operating points of a region's specialist."""
    shared = f" (one pair for {', '.join(new.together)})" if len(new.together) > 1 else ""
    click.echo(
        f"{region}: {new.pictures} pictures, {new.positives} positive; "
        f"temperature {new.temperature:.3f}, bias {new.bias:.3f}{shared}"
    )
    _print_points(new.points, "")
    if new.studies.reason:
        click.echo(f"  no thresholds for studies: {new.studies.reason}")
    _print_points(new.studies.points, " (studies)")


def _print_points(points: Mapping[str, StoredPoint], suffix: str) -> None:
    from stages.evaluation.headlines import words

    for name, point in points.items():
        click.echo(
            f"  {name}{suffix}: threshold {point.threshold:.4f}, uncertain from "
            f"{point.doubt_below:.4f}; sensitivity {words(point.sensitivity)}, specificity "
            f"{words(point.specificity)} ({point.rule})"
        )
