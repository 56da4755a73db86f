"""The outputs of a run, in one list: names, settings, writers, and how each one is resumed.

An output is a subclass of :class:`~.writer.Writer` in a file of its own and an entry here. The
options of ``fxpipe run``, its checks before the start, resuming and the summary follow this list.
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
    """What happens to an output when an unfinished run is resumed."""

    APPEND = auto()
    """The file is cut back to the last row that the journal knows, and appended to."""
    REBUILD = auto()
    """The file is written at the end, from all lines of results.jsonl."""
    RECOUNT = auto()
    """The writer gets the outcomes that are kept, with its own notes: ``Writer.recount``."""
    KEEP = auto()
    """Each file belongs to one finding; the journal checks that those of kept rows are there."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a run.

    Attributes:
        name: Of the file or folder in the output folder; of one elsewhere, what it holds.
        resume: What happens to it when an unfinished run is resumed.
        load: Imports its writer; what only this output needs is imported here.
        setting: Field of :class:`~pipeline.config.RunConfig` that asks for it, and its option;
            empty for an output without one.
        help: Of that option.
        metavar: Of that option; empty for the usual one.
        wanted: Whether a run writes it; None: where the setting is not empty.
        extra: Of fxpipe, if the writer needs one.
        is_file: Whether it is one file in the output folder.
        pictures: Whether it shows pictures.
    """

    name: str
    resume: Resume
    load: Callable[[], type[Writer]]
    setting: str = ""
    help: str = ""
    metavar: str = ""
    wanted: Callable[[RunConfig], bool] | None = None
    extra: str = ""
    is_file: bool = True
    pictures: bool = False

    @property
    def option(self) -> str:
        """The option of its setting: ``--dicom-out``."""
        return "--" + self.setting.replace("_", "-")

    def asked(self, config: RunConfig) -> bool:
        """Whether a run with these settings writes it."""
        if self.wanted is not None:
            return self.wanted(config)
        return not self.setting or bool(getattr(config, self.setting))

    def elsewhere(self, config: RunConfig) -> Path | None:
        """The folder that its setting names; None for an output in the output folder."""
        value = getattr(config, self.setting) if self.setting else None
        return value if isinstance(value, Path) else None

    def open(self, job: Job) -> Writer:
        """Its writer; see :meth:`~.writer.Writer.opened`."""
        path = self.elsewhere(job.config) or job.folder / self.name
        return self.load().opened(path, job)


def _page() -> type[Writer]:
    from .html import HtmlWriter

    return HtmlWriter


def _fhir() -> type[Writer]:
    from .fhir import FhirWriter  # its codes take a while to load

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
        "Overlays in OUTPUT/heatmaps/: of positive and uncertain pictures, of all, or none.  "
        "[default: positive with --report or --dicom-out, else none]",
        wanted=lambda config: config.shown_heatmaps != "none",
        is_file=False,
        pictures=True,
    ),
    Output(
        "report.html",
        Resume.APPEND,
        _page,
        "report",
        "OUTPUT/report.html too: worklist, pictures and heatmaps in one page.",
        pictures=True,
    ),
    Output(
        "results.fhir.json", Resume.APPEND, _fhir, "fhir", "OUTPUT/results.fhir.json too: FHIR R4."
    ),
    Output(
        "results.parquet",
        Resume.REBUILD,
        _parquet,
        "parquet",
        "OUTPUT/results.parquet too: the columns of results.csv with their types.",
        extra="parquet",
    ),
    Output(
        "studies.csv",
        Resume.RECOUNT,
        lambda: StudiesWriter,
        "studies",
        "What pictures are one study, for studies.csv: auto (DICOM header, else MURA's folders), "
        "dicom, mura, folder, none, or TABLE.csv with columns path and study.  [default: auto]",
        metavar="HOW",
    ),
    Output(
        "DICOM objects",
        Resume.RECOUNT,
        _objects,
        "dicom_out",
        "Folder for reports, overlays and contours of DICOM pictures as DICOM objects.",
        extra="dicom",
        is_file=False,
    ),
)
"""All outputs, in the order in which they are written."""
