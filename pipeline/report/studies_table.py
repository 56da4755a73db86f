"""The table of studies: one row for each, with the verdict on all its pictures together."""

from __future__ import annotations

import csv
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..decision import Seen, decide_study, strongest
from ..domain import ANY_REGION, REGIONS
from ..outcome import AGGREGATION, SEVERITY, OperatingPoint, Outcome, Status, StudyCall, most_severe
from .csv_table import BOM, cell
from .record import Record, finding_record, image_text
from .stream import naming_file, write_whole
from .writer import Job, Writer

STUDY_COLUMNS = (
    "study",
    "status",
    "pictures",
    *(status.value for status in Status),
    "regions",
    "region",
    "target",
    "verdict",
    "probability",
    "threshold",
    "operating_point",
    "threshold_of",
    "aggregation",
    *(f"{name}_{region}" for region in REGIONS for name in ("verdict", "probability")),
    "picture",
    "frame",
)
"""The columns of the table, in order.

``pictures`` is the number of rows in results.csv; ``ok``, ``unsupported`` and ``failed`` are their
numbers by status. ``status`` is ``ok`` if any of them is ok, else ``failed`` if any of them failed.
``region`` to ``threshold_of`` belong to the most severe call, ``picture`` and ``frame`` to the
picture that it comes from; ``threshold_of`` states whether the threshold was fitted to studies or
to pictures.
"""


@dataclass(slots=True)
class StudyState:
    """What is known about one study, without pictures and heatmaps.

    Attributes:
        ends: Number of pictures by status.
        fired: Regions that were recognised in any of them.
        best: See :func:`pipeline.decision.strongest`.
    """

    ends: Counter[Status] = field(default_factory=Counter)
    fired: set[str] = field(default_factory=set)
    best: tuple[Seen, ...] = ()

    def add(self, outcome: Outcome) -> None:
        """Add one picture."""
        self.ends[outcome.status] += 1
        self.fired.update(outcome.region.fired if outcome.region else ())
        new = ((outcome.image, replace(call, heatmap=None)) for call in outcome.findings)
        self.best = strongest([*self.best, *new])

    def merge(self, later: StudyState) -> None:
        """Add the later pictures of the same study."""
        self.ends += later.ends
        self.fired |= later.fired
        self.best = strongest([*self.best, *later.best])

    @property
    def status(self) -> Status:
        """``ok`` if any picture is ok, else ``failed`` if any failed, else ``unsupported``."""
        order = (Status.OK, Status.FAILED, Status.UNSUPPORTED)
        return next(status for status in order if self.ends[status])

    def calls(self, points: Mapping[str, OperatingPoint]) -> tuple[StudyCall, ...]:
        """Verdicts on the study.

        Args:
            points: Operating points for whole studies, by specialist.
        """
        return decide_study(self.best, points)


def study_record(
    key: str, study: StudyState, points: Mapping[str, OperatingPoint], root: Path
) -> Record:
    """The row of a study: one value for each of :data:`STUDY_COLUMNS`.

    Args:
        key: Key of the study.
        study: All its pictures.
        points: Operating points for whole studies, by specialist.
        root: See :func:`pipeline.report.record.to_record`.
    """
    calls = study.calls(points)
    record: Record = dict.fromkeys(STUDY_COLUMNS)
    record |= {
        "study": key,
        "status": study.status.value,
        "pictures": study.ends.total(),
        **{status.value: study.ends[status] for status in Status},
        "regions": ";".join(region for region in REGIONS if region in study.fired) or None,
        "aggregation": AGGREGATION,
    }
    for one in calls:
        if one.call.region != ANY_REGION:
            values = finding_record(one.call)
            for name in ("verdict", "probability"):
                record[f"{name}_{one.call.region}"] = values[name]
    leading = most_severe(calls)
    if leading:
        values = finding_record(leading.call)
        record |= {name: value for name, value in values.items() if name in record}
        record |= {
            "threshold_of": leading.threshold_of,
            "aggregation": leading.aggregation,
            "picture": image_text(leading.image, root),
            "frame": leading.image.frame,
        }
    return record


class StudyStatesWriter(Writer):
    """Keeps what is known about each study until the end of a complete run.

    Args:
        path: The file to write at the end; an older one is removed immediately.
        root: See :func:`pipeline.report.record.to_record`.
    """

    def __init__(self, path: Path, root: Path) -> None:
        self._path, self._root = path, root
        self._studies: dict[str, StudyState] = {}
        with naming_file(path):
            path.unlink(missing_ok=True)

    def write(self, outcome: Outcome) -> None:
        """Add one picture to its study."""
        if outcome.study is not None:
            self._studies.setdefault(outcome.study, StudyState()).add(outcome)

    def recount(self, outcome: Outcome, notes: Any) -> None:
        """Add one picture to its study."""
        self.write(outcome)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # An interrupted run may have seen only a part of a study, so it writes nothing.
        if error is None:
            self._save()

    @abstractmethod
    def _save(self) -> None:
        """Write the file."""


class StudiesWriter(StudyStatesWriter):
    """Writes ``studies.csv`` at the end of a complete run; without a study no file is written.

    Args:
        path: The file; an older one is removed immediately.
        root: See :func:`pipeline.report.record.to_record`.
        points: Operating points for whole studies, by specialist.
        bom: Whether the file begins with a byte-order mark.
    """

    def __init__(
        self, path: Path, root: Path, points: Mapping[str, OperatingPoint], *, bom: bool = False
    ) -> None:
        super().__init__(path, root)
        self._begins = BOM if bom else ""
        self._points = points

    @classmethod
    def opened(cls, path: Path, job: Job) -> Self:
        """See :meth:`~.writer.Writer.opened`."""
        return cls(path, job.root, job.weights.study_points, bom=job.config.csv_bom)

    @property
    def summary(self) -> str:
        """``3 studies: 1 positive, 2 negative``; empty without a study."""
        calls = (
            (most_severe(study.calls(self._points)), study.status)
            for study in self._studies.values()
        )
        counts = Counter(call.verdict if call else status for call, status in calls)
        listed = ", ".join(f"{n} {answer.value}" for answer in SEVERITY if (n := counts[answer]))
        noun = "study" if counts.total() == 1 else "studies"
        return f"{counts.total()} {noun}: {listed}" if counts else ""

    def _save(self) -> None:
        if not self._studies:
            return
        file = StringIO(newline="")
        file.write(self._begins)
        writer = csv.DictWriter(file, STUDY_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for key, study in self._studies.items():
            record = study_record(key, study, self._points, self._root)
            writer.writerow({name: cell(value) for name, value in record.items()})
        write_whole(self._path, file.getvalue().encode("utf-8"))
