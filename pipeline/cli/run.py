"""``fxpipe run``: files in, verdicts out."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from rich.console import Console

from .. import log
from ..bundle import MANIFEST_NAME
from ..config import Device, RunConfig, load
from ..domain import Outcome
from ..errors import UsageError
from ..io.discover import discover
from ..orchestrator import run
from ..progress import Progress, on_stderr, visible
from ..report import ReportWriter
from ..report.csv_table import CsvWriter
from ..report.heatmaps import HeatmapWriter
from ..report.json_lines import JsonLinesWriter
from ..report.summary import Summary
from ..runtime.session import Weights, load_bundles
from .extras import needs

if TYPE_CHECKING:
    from ..report.dicom.writer import DicomWriter
    from ..report.fhir import FhirWriter

_FOLDER = click.Path(path_type=Path)


@click.command(name="run")
@click.option("--input", "source", type=_FOLDER, required=True, help="A file or a folder.")
@click.option(
    "--output",
    type=_FOLDER,
    default=Path("results"),
    show_default=True,
    help="Folder for results.csv and results.jsonl; made when missing, files replaced.",
)
@click.option(
    "--weights",
    type=_FOLDER,
    envvar="FXPIPE_WEIGHTS",
    help="Folder with a manifest.json.  [env: FXPIPE_WEIGHTS; default: ./weights]",
)
@click.option("--device", type=click.Choice(get_args(Device)), help="Where the networks run.")
@click.option("--batch-size", type=int, help="Pictures that the trunk sees at once.")
@click.option("--workers", type=int, help="Threads that read ahead; 0 for one a core.")
@click.option("--operating-point", metavar="NAME", help="A decision rule stored in the bundles.")
@click.option(
    "--heatmaps",
    type=click.Choice(("none", "positive", "all")),
    help="Overlays in OUTPUT/heatmaps/: of positive and uncertain pictures, of all, or none.  "
    "[default: none; with --dicom-out positive]",
)
@click.option(
    "--identifiers",
    type=click.Choice(("omit", "keep")),
    help="Whether the outputs tell patient, accession and DICOM UIDs.  [default: omit]",
)
@click.option(
    "--dicom-out",
    type=_FOLDER,
    help="Folder for reports, overlays and contours of DICOM pictures as DICOM objects.",
)
@click.option("--fhir", is_flag=True, help="Also write OUTPUT/results.fhir.json, FHIR R4.")
@click.option("--config", "file", type=_FOLDER, help="TOML file with settings.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="One setting; repeatable."
)
@click.option("--quiet", is_flag=True, help="No progress and no summary; warnings remain.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    source: Path,
    output: Path,
    weights: Path | None,
    file: Path | None,
    settings: tuple[str, ...],
    quiet: bool,
    dicom_out: Path | None,
    fhir: bool,
    **options: Any,
) -> None:
    """Judge every picture of --input: which region, and is there a fracture?

    Every file gets a row, also those that cannot be read or show something else. Options stand
    above --set, --set above --config. A text in the CSV that a spreadsheet would run as a
    formula gets an apostrophe in front.
    """
    log.configure()
    # As TOML strings: an operating point that is called "1" stays a name.
    given = [
        f"{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in options.items()
        if value is not None
    ]
    defaults = {} if dicom_out is None else {"heatmaps": "positive"}
    config = load(RunConfig, file, [*settings, *given], defaults)
    _check_apart(source, output)
    paths = discover(source, exclude=output)
    first = next(paths)  # refuses an empty folder before anything is opened or written
    networks = load_bundles(weights or default_weights(), config)

    root = source if source.is_dir() else source.parent
    summary = Summary(root)
    total = sum(1 for _ in discover(source, exclude=output)) if visible() and not quiet else None
    objects = _dicom_writer(source, dicom_out, config, networks) if dicom_out else None
    table = _prepare_output(output)
    with ExitStack() as stack:
        writers: list[ReportWriter] = [summary, *_writers(stack, table, root, config)]
        if fhir:
            writers.append(stack.enter_context(_fhir_writer(table, root)))
        if objects:
            writers.append(objects)
        progress = stack.enter_context(on_stderr(total, quiet))
        rendered = config.heatmaps != "none"
        outcomes = run(chain([first], paths), networks, config, rendered=rendered)
        _write_all(outcomes, writers, progress)
    if not quiet:
        summary.print_to(stdout_console(), table)
        if objects:
            click.echo(objects.summary)
    ctx.exit(1 if summary.failed else 0)


def _writers(
    stack: ExitStack, table: Path, root: Path, config: RunConfig
) -> Iterator[ReportWriter]:
    """Those of the output folder; their files are closed with the stack."""
    yield stack.enter_context(CsvWriter(table, root))
    yield stack.enter_context(JsonLinesWriter(table.with_suffix(".jsonl"), root))
    if config.heatmaps != "none":
        yield HeatmapWriter(table.parent, config.contour, config.opacity)


def _fhir_writer(table: Path, root: Path) -> FhirWriter:
    from ..report.fhir import FhirWriter  # its codes take a while to load

    return FhirWriter(table.with_suffix(".fhir.json"), root)


def _write_all(
    outcomes: Iterator[Outcome], writers: Iterable[ReportWriter], progress: Progress
) -> None:
    last = None
    for outcome in outcomes:
        for writer in writers:
            writer.write(outcome)
        if outcome.image.path != last:  # the frames of one file count once
            last = outcome.image.path
            progress.advance()


def _check_apart(source: Path, output: Path) -> None:
    """Results in the folder that is read would be input of the next run."""
    if source.is_dir() and output.resolve() == source.resolve():
        raise UsageError(f"--output {output} is the input folder", "name another --output")


def _dicom_writer(source: Path, folder: Path, config: RunConfig, networks: Weights) -> DicomWriter:
    """The writer of DICOM objects, into a folder where no original can be."""
    with needs("dicom"):
        from ..report.dicom.writer import DicomWriter

    inputs = source.resolve() if source.is_dir() else source.resolve().parent
    below = source.is_dir() and folder.resolve().is_relative_to(inputs)
    if below or folder.resolve() == inputs:
        raise UsageError(
            f"--dicom-out {folder} is in the input folder, wanted one apart from all originals",
            "name another --dicom-out",
        )
    try:
        return DicomWriter(folder, config, networks.digests(networks.stages))
    except OSError as error:
        raise UsageError(
            f"--dicom-out {folder}: cannot be written: {error.strerror}", "name another --dicom-out"
        ) from error


def _prepare_output(output: Path) -> Path:
    """Make the folder; the path of the table in it."""
    table = output / "results.csv"
    try:
        output.mkdir(parents=True, exist_ok=True)
        for path in (table, table.with_suffix(".jsonl")):
            path.touch()
    except OSError as error:
        raise UsageError(
            f"--output {output}: cannot be written: {error.strerror}", "name another --output"
        ) from error
    return table


def default_weights() -> Path:
    """``./weights``, or the folder beside the packages of a source checkout."""
    here = Path("weights")
    beside = Path(__file__).resolve().parents[2] / "weights"
    return next((f for f in (here, beside) if (f / MANIFEST_NAME).exists()), here)


def stdout_console() -> Console:
    """A console that prints any file name, whatever the terminal's encoding."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    return Console()
