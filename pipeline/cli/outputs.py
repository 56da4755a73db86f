"""What a run writes: the table always, everything else as it was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import RunConfig
from ..errors import UsageError
from ..lock import exclusive
from ..report import ReportWriter
from ..report.csv_table import CsvWriter
from ..report.heatmaps import HeatmapWriter
from ..report.json_lines import JsonLinesWriter
from ..report.resume import Kept
from ..report.studies_table import StudiesWriter
from ..runtime.session import Weights
from .extras import needs
from .inputs import Inputs

if TYPE_CHECKING:
    from ..report.dicom.writer import DicomWriter

TABLE = "results.csv"
STUDIES_TABLE = "studies.csv"


def check_apart(inputs: Inputs, output: Path, config: RunConfig) -> None:
    """Results among the files that are read would be input of the next run.

    Raises:
        UsageError: The output folder is an input folder, or DICOM objects would lie among the
            originals.
    """
    for source in inputs.paths:
        if source.is_dir() and output.resolve() == source.resolve():
            raise UsageError(f"--output {output} is the input folder", "name another --output")
        if config.dicom_out is None:
            continue
        objects = config.dicom_out.resolve()
        folder = source.resolve() if source.is_dir() else source.resolve().parent
        if (source.is_dir() and objects.is_relative_to(folder)) or objects == folder:
            raise UsageError(
                f"--dicom-out {config.dicom_out} is in the input folder, wanted one apart from all "
                "originals",
                "name another --dicom-out",
            )


def hold(stack: ExitStack, output: Path) -> None:
    """Make the folder, and keep other processes out of it until the stack is closed.

    Raises:
        UsageError: It cannot be written, or another process holds it.
    """
    with _named(output):
        output.mkdir(parents=True, exist_ok=True)
        stack.enter_context(exclusive(output))


def check_writable(output: Path) -> None:
    """See that the tables can be written; a spreadsheet may have one open.

    Raises:
        UsageError: They cannot.
    """
    with _named(output):
        for name in (TABLE, STUDIES_TABLE):
            (output / name).touch()


@contextmanager
def _named(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"--output {output}: cannot be written: {error.strerror}", "name another --output"
        ) from error


def open_writers(
    stack: ExitStack, output: Path, root: Path, networks: Weights, config: RunConfig, kept: Kept
) -> Iterator[ReportWriter]:
    """Those of the output folder, behind what is kept; their files are closed with the stack."""
    table = output / TABLE
    types = networks.tell_types
    after = kept.after(table)
    yield stack.enter_context(CsvWriter(table, root, after, bom=config.csv_bom, types=types))
    lines = table.with_suffix(".jsonl")
    yield stack.enter_context(JsonLinesWriter(lines, root, kept.after(lines)))
    if config.shown_heatmaps != "none":
        yield HeatmapWriter(output, config.contour, config.opacity)
    if config.report:
        from ..report.html import HtmlWriter

        page = output / "report.html"
        yield stack.enter_context(HtmlWriter(page, root, networks, config, kept.after(page)))
    if config.fhir:
        from ..report.fhir import FhirWriter  # its codes take a while to load

        bundle = table.with_suffix(".fhir.json")
        yield stack.enter_context(FhirWriter(bundle, root, kept.after(bundle)))


def studies_writer(output: Path, root: Path, networks: Weights, config: RunConfig) -> StudiesWriter:
    """The writer of the table of studies."""
    return StudiesWriter(output / STUDIES_TABLE, root, networks.study_points, bom=config.csv_bom)


def dicom_writer(networks: Weights, config: RunConfig) -> DicomWriter | None:
    """The writer of DICOM objects; None when they were not asked for.

    Raises:
        MissingExtraError: highdicom is not installed.
        UsageError: The folder cannot be written.
    """
    if config.dicom_out is None:
        return None
    with needs("dicom"):
        from ..report.dicom.writer import DicomWriter

    try:
        return DicomWriter(config.dicom_out, config, networks.digests(networks.stages))
    except OSError as error:
        raise UsageError(
            f"--dicom-out {config.dicom_out}: cannot be written: {error.strerror}",
            "name another --dicom-out",
        ) from error
