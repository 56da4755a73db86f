"""Assigns study keys: pictures with the same key belong to one study.

A key from a DICOM header is a digest: the program outputs the UID itself only with the other
identifiers. The key is the same in every run and in the table of ``fxpipe index``. It is a
pseudonym, not anonymous: anyone with a list of UIDs can hash them and match the keys.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .config import STUDIES
from .errors import ConfigError, shortened
from .report.csv_table import cell
from .report.record import path_text, plain
from .spreadsheet import separator_of, text_of

log = logging.getLogger(__name__)

_MURA = re.compile(r"patient[0-9]{1,9}/study[0-9]{1,9}_[a-z]{1,20}/image[0-9]{1,9}\.[A-Za-z]{1,5}")
_MOST_VIEWS = 10
"""A folder with more pictures is unlikely to be a single study: a limb has two to six views."""


@dataclass(slots=True)
class Studies:
    """Gives each picture the key of its study.

    Attributes:
        how: One of :data:`pipeline.config.STUDIES`, or the name of a table.
        root: See :func:`pipeline.report.record.to_record`.
        table: Keys by path as in the results; None without a table.
    """

    how: str
    root: Path
    table: dict[str, str] | None = None
    _matched: set[str] = field(default_factory=set)
    _folders: dict[str, tuple[set[Path], set[str]]] = field(default_factory=dict)

    def key(self, path: Path | None, uid: str | None) -> str | None:
        """The study key of a picture, one printable line; None if it has no study.

        Args:
            path: Its file; None for content in memory, whose study only the header can give.
            uid: The StudyInstanceUID of its header; None without one.
        """
        if self.table is not None:
            return self._listed(path_text(path, self.root)) if path else None
        if uid and self.how in ("auto", "dicom"):
            return pseudonym(uid)
        if path is None:
            return None
        if self.how == "folder":
            name = path_text(path.parent, self.root)
            pictures, uids = self._folders.setdefault(name, (set(), set()))
            pictures.add(path)
            uids.update([uid] if uid else [])
            return name
        if self.how in ("auto", "mura") and _is_mura(path):
            return path_text(path.parent, self.root)
        return None

    def _listed(self, text: str) -> str | None:
        for name in (text, cell(text)):  # the latter if the table was made from results.csv
            if self.table and name in self.table:
                self._matched.add(name)
                return self.table[name] or None
        return None

    def warn(self) -> None:
        """Log warnings about doubtful studies; call it after all pictures.

        It reports table rows without a picture, and folders that seem to contain several studies
        according to their headers or their number of pictures.
        """
        for name, (pictures, uids) in self._folders.items():
            if len(uids) > 1 or len(pictures) > _MOST_VIEWS:
                by_headers = f", of {len(uids)} by their headers" if len(uids) > 1 else ""
                log.warning(
                    "folder %s: its %d pictures are one study%s; expected a folder for each study, "
                    "or --studies TABLE.csv: findings of several patients in one study are "
                    "combined", name, len(pictures), by_headers,
                )  # fmt: skip
        unmatched = len(self.table or ()) - len(self._matched)
        if unmatched:
            log.warning(
                "%s: %d of %d rows name no file of the input, expected paths as in results.csv",
                self.how, unmatched, len(self.table or ()),
            )  # fmt: skip


def studies_by(how: str, root: Path) -> Studies:
    """Open the source of study keys.

    Args:
        how: One of :data:`pipeline.config.STUDIES`, or a CSV file with columns ``path`` and
            ``study``.
        root: The input folder, or the folder of the input file.

    Raises:
        ConfigError: The table cannot be read, or contradicts itself.
    """
    return Studies(how, root, None if how in STUDIES else _read_table(Path(how)))


def pseudonym(identifier: str) -> str:
    """A short name for a patient or a study that does not reveal the identifier."""
    return f"dicom/{hashlib.sha256(identifier.encode()).hexdigest()[:16]}"


def _is_mura(path: Path) -> bool:
    """Whether the path follows MURA: ``patient00001/study1_positive/image1.png``."""
    return _MURA.fullmatch("/".join(path.absolute().parts[-3:])) is not None


def _read_table(file: Path) -> dict[str, str]:
    """Study key by path; empty for a picture without a study."""
    try:
        text = text_of(file.read_bytes())
        rows = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator_of(text))
        head = next(rows, [])
        if head.count("path") != 1 or head.count("study") != 1:
            columns = ", ".join(plain(name) for name in head) or "none"
            raise ConfigError(
                f"{file}: found columns {columns}, expected path and study, once each"
            )
        table: dict[str, str] = {}
        faults = list(_fill(table, rows, head))
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be read: {error.strerror}", "name a table with --studies"
        ) from error
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"{file}: not CSV in UTF-8: {error}") from error
    if faults:
        raise ConfigError("\n".join(f"{file}: {fault}" for fault in shortened(faults)))
    return table


def _fill(table: dict[str, str], rows: Iterator[list[str]], head: list[str]) -> Iterator[str]:
    """Add the rows to the table; yields their errors without quoting their content."""
    for number, row in enumerate(rows, start=2):
        if not row:
            continue
        if len(row) != len(head):
            yield f"row {number}: found {len(row)} cells, expected {len(head)}"
            continue
        path, study = row[head.index("path")], plain(row[head.index("study")].strip())
        if not path:
            yield f"row {number}: found no path, expected the path of a file below the input"
        elif table.setdefault(path, study) != study:
            yield f"row {number}: found a path with another study above, expected one per path"
