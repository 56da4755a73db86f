"""``fxpipe index``: builds the table of training pictures from labelled radiographs."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import logging_setup
from ..errors import IndexFaultsError
from ..progress import Progress, on_stderr
from ._extras import needs
from ._paths import PathOption, only_one

if TYPE_CHECKING:
    from stages.samples import Sample

logger = logging.getLogger(__name__)

_FOLDER = PathOption(exists=True, file_okay=False)
_FILE = PathOption(dir_okay=False)
LAYOUTS = ("auto", "fracatlas", "mura", "folders", "table", "dicom")


@click.command(name="index")
@click.option(
    "--input",
    "source",
    type=PathOption(exists=True),
    required=True,
    multiple=True,
    callback=only_one,
    help="A data set: a folder, or a CSV file.",
)
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    default="auto",
    show_default=True,
    help="Layout of the data set; auto recognises unambiguous layouts.",
)
@click.option(
    "--columns",
    multiple=True,
    metavar="FIELD=COLUMN,…",
    help="Columns of the fields (path=Image,label=Fracture,group=PatientID), for tables and DICOM "
    "labels; columns with common names are recognised.",
)
@click.option("--labels", type=_FILE, help="CSV file with the labels of DICOM files.")
@click.option(
    "--label-kind",
    type=click.Choice(["fracture", "abnormality"]),
    help="Meaning of labels that do not state it (1, yes, positive).",
)
@click.option(
    "--negatives",
    type=_FOLDER,
    multiple=True,
    help="Folder of pictures without a supported region; repeatable. A SOURCES.csv in it states "
    "origins, licences and groups.",
)
@click.option(
    "--hold-out",
    multiple=True,
    metavar="ORIGIN",
    help="Use rows of this origin (negatives/skimage) only for testing; repeatable.",
)
@click.option(
    "--groups-from",
    "pairs",
    type=_FILE,
    multiple=True,
    help="pairs.csv of `fxpipe audit`: each pair becomes one group; delete wrong pairs first. "
    "Its paths are relative to the folder of --output; repeatable.",
)
@click.option(
    "--output", type=_FILE, default=Path("index.csv"), show_default=True, help="The table."
)
@click.option(
    "--split",
    type=click.Choice(["patient", "own", "picture"]),
    default="patient",
    show_default=True,
    help="patient: by group; own: as the data set is divided; picture: by picture, which leaks.",
)
@click.option(
    "--allow-leaks", is_flag=True, help="Write the table even if one picture is in two splits."
)
@click.option("--seed", type=click.IntRange(min=0), default=7, show_default=True)
@click.option(
    "--parts",
    type=click.IntRange(min=3),
    default=7,
    show_default=True,
    help="Number of equal parts: one to test, one to validate, the rest to train.",
)
@click.option("--quiet", is_flag=True, help="No progress and no notes.")
def command(
    source: Path,
    layout: str,
    columns: tuple[str, ...],
    labels: Path | None,
    label_kind: str | None,
    negatives: tuple[Path, ...],
    hold_out: tuple[str, ...],
    pairs: tuple[Path, ...],
    output: Path,
    split: str,
    allow_leaks: bool,
    seed: int,
    parts: int,
    quiet: bool,
) -> None:
    """Build the table of training pictures, split by group, and print its counts.

    Layouts: FracAtlas; MURA; class folders (fractured / not fractured) at any depth; a CSV file;
    DICOM files with a CSV file of labels. Facts that a data set does not state stay unknown.

    Every picture is opened once. Damaged pictures and those with contradictory labels stay in the
    table, excluded from every split. Identical files form one group. If there are faults, they are
    listed and no table is written.
    """
    logging_setup.configure(logging.WARNING if quiet else logging.INFO)
    with needs("evaluate"):
        from stages.data.adapters.columns import parse_columns
        from stages.data.adapters.layouts import read_layout, recognise
        from stages.data.adapters.negatives import read_negatives
        from stages.data.confirmed_duplicates import join_confirmed
        from stages.data.exact_duplicates import merge_identical_files
        from stages.data.index import read_index, read_table, write_index
        from stages.data.split import held_out

    def watch(total: int) -> AbstractContextManager[Progress]:
        return on_stderr(total, quiet, "pictures")

    given = {"columns": parse_columns(columns), "labels": labels, "label_kind": label_kind}
    options = {name: value for name, value in given.items() if value}
    if layout == "auto":
        layout = "dicom" if labels else recognise(source)
        logger.info("%s: read as %s", source, layout)
    samples = read_layout(layout, source, watch, options)
    others = [row for folder in negatives for row in read_negatives(folder, watch)]
    samples = merge_identical_files([*samples, *others])
    samples = join_confirmed(samples, pairs, output.parent)
    held = held_out(samples, hold_out)
    with needs("evaluate"):
        samples = _split(samples, held, len(others), split, seed, parts)
    allow_leaks |= split == "picture"
    leaks = _check_leaks(samples, output, allow_leaks)
    write_index(samples, output, allow_leaks)
    index = read_table(output) if allow_leaks else read_index(output)
    _describe(index.samples)
    if hold_out:
        tested = sum(h and s.split == "test" for s, h in zip(samples, held, strict=True))
        click.echo(f"held out for testing only: {tested} pictures")
    for leak in leaks:
        click.echo(f"leak: {leak}")
    if leaks:
        click.echo("figures from a table with leaks are not valid for new patients")
    groups = len({sample.group for sample in index.samples})
    click.echo(f"\n{output}: {len(index.samples)} pictures in {groups} groups, {index.digest[:12]}")


def _split(
    samples: list[Sample], held: list[bool], negatives: int, split: str, seed: int, parts: int
) -> list[Sample]:
    """The rows with their splits; the last ``negatives`` rows are not divided by the data set.

    Held-out rows go to the test split and do not influence the division of the others.
    """
    from stages.data.index import assign_splits
    from stages.data.split import own_splits

    rest = [replace(s, split="excluded") if h else s for s, h in zip(samples, held, strict=True)]
    if split == "own":
        divided, others = rest[: len(rest) - negatives], rest[len(rest) - negatives :]
        splits = own_splits(divided, seed, parts)
        if any(sample.split != "excluded" for sample in others):
            splits += assign_splits(others, seed, parts)
        else:
            splits += [sample.split for sample in others]
    else:
        splits = assign_splits(rest, seed, parts, "picture" if split == "picture" else "patient")
    return [
        replace(sample, split="test" if is_held and sample.split != "excluded" else part)
        for sample, is_held, part in zip(samples, held, splits, strict=True)
    ]


def _check_leaks(samples: Sequence[Sample], output: Path, allowed: bool) -> list[str]:
    """A description of each leak between splits.

    Raises:
        IndexFaultsError: There are leaks, and they are not allowed.
    """
    from stages.data.split import count_leaks

    leaks = [str(leak) for leak in count_leaks(samples)]
    if leaks and not allowed:
        raise IndexFaultsError(
            str(output),
            [f"leak: {leak}; use --split patient, or --allow-leaks" for leak in leaks],
        )
    return leaks


def _describe(samples: Sequence[Sample]) -> None:
    """Print counts by regions, split and label, by label kind and licence, and of exclusions."""
    from stages.data.index import count_table

    click.echo(count_table(samples).to_string())
    kinds = Counter(s.label_kind or "without a label" for s in samples)
    click.echo(f"\nlabels: {_counts(kinds)}")
    if any(sample.licence for sample in samples):
        click.echo(_licences([s for s in samples if s.split != "excluded"]))
    excluded = [s for s in samples if s.split == "excluded"]
    if excluded:
        reasons = Counter(flag for s in excluded for flag in s.flags.split(";") if flag)
        click.echo(f"excluded: {len(excluded)} pictures ({_counts(reasons) or 'by the data set'})")


def _licences(samples: Sequence[Sample]) -> str:
    """The number of pictures for each licence, by data set."""
    origins: dict[str, Counter[str]] = {}
    for sample in samples:
        # A row without a licence belongs to a data set with one licence, stated by its publisher.
        origin = sample.origin if sample.licence else sample.origin.split("/")[0]
        origins.setdefault(sample.licence or "not stated", Counter())[origin] += 1
    lines = sorted(origins.items(), key=lambda item: -item[1].total())
    text = "".join(
        f"\n  {counts.total()} {licence}: {_counts(counts)}" for licence, counts in lines
    )
    return f"licences:{text}"


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {word}" for word, count in counter.most_common())
