"""The list of all outputs of a run: names, settings, writers, and how each one is resumed.

An output is a subclass of :class:`~.writer.Writer` in a separate file and an entry here. The
options of ``fxpipe run``, its checks before the start, resuming and the summary use this list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from ..config import RunConfig
from ..io.own_output import OVERLAYS, TABLE
from .csv_table import CsvWriter
from .heatmaps import HeatmapWriter
from .json_lines import LINES, JsonLinesWriter
from .studies_table import StudiesWriter
from .writer import Job, Writer


class Resume(Enum):
    """How an output is resumed after an unfinished run."""

    APPEND = auto()
    """The file is cut back to the last row in the journal, and appended to."""
    REBUILD = auto()
    """The file is written at the end, from all lines of results.jsonl."""
    RECOUNT = auto()
    """The writer gets the kept outcomes with its notes: ``Writer.recount``."""
    KEEP = auto()
    """Each file belongs to one finding; the journal checks that the files of kept rows exist."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a run.

    Attributes:
        name: Name of the file or folder in the output folder; for a separate folder, its content.
        resume: How it is resumed after an unfinished run.
        load: Imports the writer and the packages that only this output needs.
        setting: Field of :class:`~pipeline.config.RunConfig` that selects it, and its option;
            empty for an output without one.
        help: Help text of that option.
        metavar: Metavar of that option; empty for click's default.
        condition: Whether a run writes it; None: if the setting is not empty.
        extra: Extra of fxpipe that the writer needs, if any.
        is_file: Whether it is one file in the output folder.
        pictures: Whether it shows pictures.
    """

    name: str
    resume: Resume
    load: Callable[[], type[Writer]]
    setting: str = ""
    help: str = ""
    metavar: str = ""
    condition: Callable[[RunConfig], bool] | None = None
    extra: str = ""
    is_file: bool = True
    pictures: bool = False

    @property
    def option(self) -> str:
        """The option of its setting: ``--dicom-out``."""
        return "--" + self.setting.replace("_", "-")

    def requested(self, config: RunConfig) -> bool:
        """Whether a run with these settings writes it."""
        if self.condition is not None:
            return self.condition(config)
        return not self.setting or bool(getattr(config, self.setting))

    def separate_folder(self, config: RunConfig) -> Path | None:
        """The folder that its setting names; None for an output in the output folder."""
        value = getattr(config, self.setting) if self.setting else None
        return value if isinstance(value, Path) else None

    def open(self, job: Job) -> Writer:
        """Its writer; see :meth:`~.writer.Writer.opened`."""
        path = self.separate_folder(job.config) or job.folder / self.name
        return self.load().opened(path, job)


def _page() -> type[Writer]:
    from .html import HtmlWriter

    return HtmlWriter


def _fhir() -> type[Writer]:
    from .fhir import FhirWriter  # its codes load slowly

    return FhirWriter


def _parquet() -> type[Writer]:
    from .parquet import ParquetWriter

    return ParquetWriter


def _objects() -> type[Writer]:
    from .dicom.objects import DicomWriter

    return DicomWriter


OUTPUTS = (
    Output(TABLE, Resume.APPEND, lambda: CsvWriter),
    Output(LINES, Resume.APPEND, lambda: JsonLinesWriter),
    Output(
        OVERLAYS,
        Resume.KEEP,
        lambda: HeatmapWriter,
        "heatmaps",
        "Overlays in OUTPUT/heatmaps/: for positive and uncertain pictures, for all, or none.  "
        "[default: positive with --report or --dicom-out, else none]",
        condition=lambda config: config.shown_heatmaps != "none",
        is_file=False,
        pictures=True,
    ),
    Output(
        "report.html",
        Resume.APPEND,
        _page,
        "report",
        "Also write OUTPUT/report.html: worklist, pictures and heatmaps in one page.",
        pictures=True,
    ),
    Output(
        "results.fhir.json",
        Resume.APPEND,
        _fhir,
        "fhir",
        "Also write OUTPUT/results.fhir.json: FHIR R4.",
    ),
    Output(
        "results.parquet",
        Resume.REBUILD,
        _parquet,
        "parquet",
        "Also write OUTPUT/results.parquet: the columns of results.csv with their types.",
        extra="parquet",
    ),
    Output(
        "studies.csv",
        Resume.RECOUNT,
        lambda: StudiesWriter,
        "studies",
        "How pictures are grouped into studies, for studies.csv: auto (DICOM header, else MURA's "
        "folders), dicom, mura, folder, none, or TABLE.csv with columns path and study.  "
        "[default: auto]",
        metavar="HOW",
    ),
    Output(
        "DICOM objects",
        Resume.RECOUNT,
        _objects,
        "dicom_out",
        "Folder for DICOM objects: reports, overlays and contours of DICOM pictures.",
        extra="dicom",
        is_file=False,
    ),
)
"""All outputs, in the order in which they are written."""
