"""Look-up of the study of a file in the directory of its DICOM medium (DICOMDIR, PS3.10 clause 8).

It is used for files whose header gives no study, mainly files that cannot be read. So a study also
lists its unreadable pictures, for example on a scratched disc.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from .warning_filter import quiet

if TYPE_CHECKING:  # pydicom is imported only when needed
    from pydicom.dataset import Dataset

_NAMES = ("DICOMDIR", "dicomdir")
_MOST_COMPONENTS = 8
"""Most components of a file name on a medium (PS3.10 clause 8.2)."""

_MOST_BYTES = 2**26


def listed_study(path: Path | None) -> str | None:
    """The StudyInstanceUID of a file according to the DICOMDIR of its medium; else None.

    Args:
        path: The file; the DICOMDIR is in its folder or a parent folder. None for content in
            memory, which has no medium.
    """
    if path is None:
        return None
    whole = path.absolute()
    for folder in whole.parents[:_MOST_COMPONENTS]:
        for name in _NAMES:
            directory = folder / name
            try:
                status = directory.stat()
                if directory.is_file() and status.st_size <= _MOST_BYTES:
                    studies = _studies(directory, status.st_mtime_ns)
                    return studies.get(_file_id(whole.relative_to(folder).parts))
            except OSError:
                continue
    return None


@lru_cache(maxsize=4)
def _studies(directory: Path, _changed_ns: int) -> MappingProxyType[str, str]:
    """StudyInstanceUID by file; empty if the directory is damaged. Cached by modification time."""
    from .dicom import parse

    try:
        with quiet():
            return MappingProxyType(studies_of(parse(directory.read_bytes(), directory.name)))
    # Hostile files raise nearly any exception, and a damaged DICOMDIR must not fail other files.
    except Exception:  # noqa: BLE001
        return MappingProxyType({})


def studies_of(ds: Dataset) -> dict[str, str]:
    """StudyInstanceUID of every file that a directory lists.

    Its records form a tree: each refers to its next sibling and its first child by their offsets
    in the file (PS3.3 F.3.2.2).

    Args:
        ds: The DICOMDIR.
    """
    records = {record.seq_item_tell: record for record in ds.DirectoryRecordSequence}
    studies: dict[str, str] = {}
    waiting = [(ds.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity, "")]
    while waiting:
        offset, study = waiting.pop()
        record = records.pop(offset, None)  # each once, even in a circular list
        if record is None:
            continue
        waiting.append((record.get("OffsetOfTheNextDirectoryRecord"), study))
        if record.get("DirectoryRecordType") == "STUDY":
            study = str(record.get("StudyInstanceUID") or "").strip()
        waiting.append((record.get("OffsetOfReferencedLowerLevelDirectoryEntity"), study))
        file_id = record.get("ReferencedFileID")
        if study and file_id:
            studies[_file_id([file_id] if isinstance(file_id, str) else file_id)] = study
    return studies


def _file_id(components: tuple[str, ...] | list[str]) -> str:
    """Normalised file name: upper case, without ``;1`` of ISO 9660."""
    return "/".join(str(part).partition(";")[0].rstrip(".").upper() for part in components)
