"""``fxpipe index``: a folder of labelled radiographs becomes the one table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from .. import log
from .extras import needs

_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command(name="index")
@click.option(
    "--input",
    "folder",
    type=_FOLDER,
    required=True,
    help="FracAtlas folder: images/ beside labels.csv.",
)
@click.option(
    "--negatives",
    type=_FOLDER,
    multiple=True,
    help="Folder of pictures that show no supported region; repeatable.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("index.csv"),
    show_default=True,
    help="The table.",
)
@click.option("--seed", type=click.IntRange(min=0), default=7, show_default=True)
@click.option(
    "--parts",
    type=click.IntRange(min=3),
    default=7,
    show_default=True,
    help="Equal parts: one to test, one to validate, the rest to train.",
)
def command(folder: Path, negatives: tuple[Path, ...], output: Path, seed: int, parts: int) -> None:
    """Build the table of training pictures, split by group, and print its counts.

    Every picture is opened once. Truncated and contradictory ones stay in the table, excluded
    from every split. Faults are listed, and then no table is written.
    """
    log.configure()
    with needs("train"):
        from stages.data.adapters.fracatlas import read_fracatlas, read_negatives
        from stages.data.index import assign_splits, count_table, read_index, write_index

        samples = read_fracatlas(folder)
        for other in negatives:
            samples += read_negatives(other)
        splits = assign_splits(samples, seed, parts)
    samples = [replace(s, split=split) for s, split in zip(samples, splits, strict=True)]
    write_index(samples, output)
    index = read_index(output)
    click.echo(count_table(index.samples).to_string())
    groups = len({sample.group for sample in index.samples})
    click.echo(f"\n{output}: {len(index.samples)} pictures in {groups} groups, {index.digest[:12]}")
