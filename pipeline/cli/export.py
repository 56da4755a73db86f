"""``fxpipe export``: finished runs become bundles, or are refused."""

from __future__ import annotations

from pathlib import Path

import click

from .. import log
from ..bundle import Precision
from ..config import load
from ..progress import on_stderr
from .extras import needs

_PATH = click.Path(path_type=Path)


@click.command(name="export")
@click.option(
    "--run",
    "folders",
    type=_PATH,
    multiple=True,
    default=(Path("runs"),),
    show_default=True,
    help="A run, or a folder of runs: then all of them; repeatable.",
)
@click.option(
    "--index",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("index.csv"),
    show_default=True,
    help="The table that the runs were trained on.",
)
@click.option(
    "--weights",
    type=_PATH,
    default=Path("weights"),
    show_default=True,
    help="Folder for the bundles and their manifest.",
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice([p.value for p in Precision]),
    multiple=True,
    help="What to write; repeatable.  [default: int8 and fp16]",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="One setting.")
def command(
    folders: tuple[Path, ...],
    index: Path,
    weights: Path,
    precisions: tuple[str, ...],
    settings: tuple[str, ...],
) -> None:
    """Export runs to ONNX and compare them with the trained networks on real pictures.

    A stage that decides otherwise than the trained one, outside the stated margin, is refused,
    and the weights folder stays as it was.
    """
    log.configure()
    with needs("train"):
        from stages.data.index import read_index
        from stages.ship import ExportConfig, export_runs, find_runs
    if precisions:
        settings = (*settings, f"precisions={list(precisions)}")
    config = load(ExportConfig, None, settings)
    runs = [run for folder in folders for run in find_runs(folder)]
    with on_stderr(None, False, "stages compared") as progress:
        rows = export_runs(runs, read_index(index), weights, config, progress)
    for row in rows:
        click.echo(str(row))
    click.echo(f"{weights}: {len(runs)} run(s) exported")
