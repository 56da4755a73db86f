"""The directory of a DICOM medium (DICOMDIR, PS3.10 clause 8): which study a file belongs to.

A file's own header says it first. The directory is asked about files whose header does not, above
all those that cannot be read: so a study keeps the pictures that it lost on a scratched disc.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from .quiet import quiet

if TYPE_CHECKING:  # as in the package: most files need no pydicom
    from pydicom.dataset import Dataset

_NAMES = ("DICOMDIR", "dicomdir")
_MOST_COMPONENTS = 8
"""Of a file's name on a medium (PS3.10 clause 8.2)."""

_MOST_BYTES = 2**26


def listed_study(path: Path | None) -> str | None:
    """The StudyInstanceUID of a file by the DICOMDIR of its medium; None where there is none.

    Args:
        path: The file; the DICOMDIR lies in its folder or above it. None for content that was in
            memory, which is on no medium.
    """
    if path is None:
        return None
    whole = path.absolute()
    for folder in whole.parents[:_MOST_COMPONENTS]:
        for name in _NAMES:
            directory = folder / name
            try:
                found = directory.stat()
                if directory.is_file() and found.st_size <= _MOST_BYTES:
                    studies = _studies(directory, found.st_mtime_ns)
                    return studies.get(_file_id(whole.relative_to(folder).parts))
            except OSError:
                continue
    return None


@lru_cache(maxsize=4)
def _studies(directory: Path, _changed_ns: int) -> MappingProxyType[str, str]:
    """StudyInstanceUID by file, as of a moment; none where the directory is broken."""
    from .dicom import parse

    try:
        with quiet():
            return MappingProxyType(studies_of(parse(directory.read_bytes(), directory.name)))
    # Hostile files raise nearly anything, and the file that is asked about is not this one.
    except Exception:  # noqa: BLE001
        return MappingProxyType({})


def studies_of(ds: Dataset) -> dict[str, str]:
    """StudyInstanceUID of every file that a directory lists.

    Its records are a tree: each names the next one beside it and the first one below it, by their
    places in the file (PS3.3 F.3.2.2).

    Args:
        ds: The DICOMDIR.
    """
    records = {record.seq_item_tell: record for record in ds.DirectoryRecordSequence}
    studies: dict[str, str] = {}
    waiting = [(ds.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity, "")]
    while waiting:
        offset, study = waiting.pop()
        record = records.pop(offset, None)  # each once, also where they form a circle
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
    """A file's name, however the file system shows it: small letters, and ``;1`` of ISO 9660."""
    return "/".join(str(part).partition(";")[0].rstrip(".").upper() for part in components)
