"""Detection of files that fxpipe wrote, so that it never judges its own output.

DICOM objects are recognised by manufacturer and series, overlays by the *Software* text of the PNG
file, and the files of a run by name (``results.*`` except pictures, and a few more) in a folder
with a ``results.csv`` of fxpipe.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .sniff import claims_picture

if TYPE_CHECKING:  # not needed to walk folders
    from pydicom.dataset import Dataset

MAKER = "fxpipe"
"""Manufacturer of every DICOM object of fxpipe, and *Software* of every overlay."""

SERIES = {9001: "a structured report", 9002: "an overlay", 9003: "a presentation state"}
"""Kinds of DICOM objects of fxpipe, by series number."""


def describe_own(ds: Dataset) -> str | None:
    """Kind of a DICOM object that fxpipe created; None for any other object.

    An archive may renumber series, so the series description is checked too.

    Args:
        ds: Header of the object.
    """
    if _text(ds, "Manufacturer") != MAKER:
        return None
    number = _text(ds, "SeriesNumber")
    kind = SERIES.get(int(number)) if number.isdecimal() and len(number) < 6 else None
    described = _text(ds, "SeriesDescription").startswith(f"{MAKER} ")
    return kind or ("an object" if described else None)


def _text(ds: Dataset, keyword: str) -> str:
    return str(ds.get(keyword) or "").strip()


TABLE = "results.csv"
TABLE_BEGINS = b"path,frame,sha256,"
"""The first columns of results.csv, in every version of fxpipe."""

_RESULTS = {
    "studies.csv", "studies.jsonl", "done.json", "report.html", "unfinished.journal",
    "fxpipe.lock",
}  # fmt: skip
"""What a run writes, but for ``results.*``."""
OVERLAYS = "heatmaps"
_OVERLAY = re.compile(r"[0-9a-f]{16}(-[0-9]+)?-[a-z]+\.png(\.partial)?")
_BOM = b"\xef\xbb\xbf"


def without_results(
    folder: Path, entries: Sequence[os.DirEntry[str]]
) -> Sequence[os.DirEntry[str]]:
    """Entries of a folder without results of fxpipe.

    Args:
        folder: Any folder.
        entries: All its entries.
    """
    if folder.name != OVERLAYS and not any(entry.name == TABLE for entry in entries):
        return entries
    is_result = result_names(folder)
    if is_result is None:
        return entries
    return [entry for entry in entries if not is_result(entry.name)]


def result_names(folder: Path) -> Callable[[str], bool] | None:
    """A function that recognises the names of results of fxpipe; None if the folder has none.

    Args:
        folder: Any folder.
    """
    if folder.name == OVERLAYS and _is_table(folder.parent / TABLE):
        return is_overlay
    return is_result if _is_table(folder / TABLE) else None


def is_overlay(name: str) -> bool:
    """Whether a file of that name in a folder of overlays is one."""
    return _OVERLAY.fullmatch(name) is not None


def is_result(name: str) -> bool:
    """Whether a file of that name in a folder of results is one; a picture never is."""
    return name in _RESULTS or (name.startswith("results.") and not claims_picture(name))


def _is_table(path: Path) -> bool:
    """Whether a file is a result table of fxpipe; only regular files are opened."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            return begins_table(file.read(len(_BOM) + len(TABLE_BEGINS)))
    except OSError:
        return False


def begins_table(content: bytes) -> bool:
    """Whether a file that begins like this is a result table of fxpipe."""
    return content.removeprefix(_BOM).startswith(TABLE_BEGINS)
