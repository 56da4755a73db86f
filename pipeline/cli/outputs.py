"""What a run writes: the table always, everything else as it was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import RunConfig
from ..errors import UsageError
from ..report import ReportWriter
from ..report.csv_table import CsvWriter
from ..report.heatmaps import HeatmapWriter
from ..report.json_lines import JsonLinesWriter
from ..report.studies_table import StudiesWriter
from ..runtime.session import Weights
from .extras import needs

if TYPE_CHECKING:
    from ..report.dicom.writer import DicomWriter

TABLE = "results.csv"
STUDIES_TABLE = "studies.csv"


def check_apart(source: Path, output: Path, config: RunConfig) -> None:
    """Results among the files that are read would be input of the next run.

    Raises:
        UsageError: The output folder is the input folder, or DICOM objects would lie among the
            originals.
    """
    if source.is_dir() and output.resolve() == source.resolve():
        raise UsageError(f"--output {output} is the input folder", "name another --output")
    if config.dicom_out is None:
        return
    objects = config.dicom_out.resolve()
    inputs = source.resolve() if source.is_dir() else source.resolve().parent
    if (source.is_dir() and objects.is_relative_to(inputs)) or objects == inputs:
        raise UsageError(
            f"--dicom-out {config.dicom_out} is in the input folder, wanted one apart from all "
            "originals",
            "name another --dicom-out",
        )


def prepare(output: Path) -> None:
    """Make the folder and see that it can be written.

    Raises:
        UsageError: It cannot.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name in (TABLE, STUDIES_TABLE):
            (output / name).touch()
    except OSError as error:
        raise UsageError(
            f"--output {output}: cannot be written: {error.strerror}", "name another --output"
        ) from error


def open_writers(
    stack: ExitStack, output: Path, root: Path, networks: Weights, config: RunConfig
) -> Iterator[ReportWriter]:
    """Those of the output folder; their files are closed with the stack."""
    table = output / TABLE
    yield stack.enter_context(CsvWriter(table, root))
    yield stack.enter_context(JsonLinesWriter(table.with_suffix(".jsonl"), root))
    if config.shown_heatmaps != "none":
        yield HeatmapWriter(output, config.contour, config.opacity)
    if config.report:
        from ..report.html import HtmlWriter

        yield stack.enter_context(HtmlWriter(output / "report.html", root, networks, config))
    if config.fhir:
        from ..report.fhir import FhirWriter  # its codes take a while to load

        yield stack.enter_context(FhirWriter(table.with_suffix(".fhir.json"), root))


def studies_writer(output: Path, root: Path, networks: Weights) -> StudiesWriter:
    """The writer of the table of studies."""
    return StudiesWriter(output / STUDIES_TABLE, root, networks.study_points)


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
