"""Files that fxpipe wrote, and how it knows them again: it never judges its own output.

DICOM objects by manufacturer and series, overlays by the word *Software* in the PNG file. The
files of a run by their names (``results.*`` but for pictures, and a few more), in a folder whose
``results.csv`` begins as only fxpipe begins one.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .sniff import claims_picture

if TYPE_CHECKING:  # the walk through the folders needs no pydicom
    from pydicom.dataset import Dataset

MAKER = "fxpipe"
"""Manufacturer of every DICOM object that fxpipe makes, and *Software* of every overlay."""

SERIES = {9001: "a structured report", 9002: "an overlay", 9003: "a presentation state"}
"""What the objects of fxpipe are, by the number of their series."""


def describe_own(ds: Dataset) -> str | None:
    """What a DICOM object is if fxpipe made it; None for any other.

    An archive may number series anew, so their description counts as well.

    Args:
        ds: Its header.
    """
    if _text(ds, "Manufacturer") != MAKER:
        return None
    number = _text(ds, "SeriesNumber")
    found = SERIES.get(int(number)) if number.isdecimal() and len(number) < 6 else None
    described = _text(ds, "SeriesDescription").startswith(f"{MAKER} ")
    return found or ("an object" if described else None)


def _text(ds: Dataset, keyword: str) -> str:
    return str(ds.get(keyword) or "").strip()


TABLE = "results.csv"
TABLE_BEGINS = b"path,frame,sha256,"
"""The first columns of results.csv, in every version of fxpipe."""

_RESULTS = {"studies.csv", "report.html", "unfinished.journal", "fxpipe.lock"}
"""What a run writes, but for ``results.*``."""
OVERLAYS = "heatmaps"
_OVERLAY = re.compile(r"[0-9a-f]{16}(-[0-9]+)?-[a-z]+\.png(\.partial)?")
_BOM = b"\xef\xbb\xbf"


def without_results(
    folder: Path, entries: Sequence[os.DirEntry[str]]
) -> Sequence[os.DirEntry[str]]:
    """The entries of a folder that are no results of fxpipe.

    Args:
        folder: With results or without.
        entries: All that is in it.
    """
    if folder.name == OVERLAYS and _is_table(folder.parent / TABLE):
        return [entry for entry in entries if not _OVERLAY.fullmatch(entry.name)]
    if any(entry.name == TABLE for entry in entries) and _is_table(folder / TABLE):
        return [entry for entry in entries if not _is_result(entry.name)]
    return entries


def _is_result(name: str) -> bool:
    """Whether a file of that name in a folder of results is one; a picture never is."""
    return name in _RESULTS or (name.startswith("results.") and not claims_picture(name))


def _is_table(path: Path) -> bool:
    """Whether a file is a table that a run wrote; what is no regular file is not opened."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            begins = file.read(len(_BOM) + len(TABLE_BEGINS)).removeprefix(_BOM)
    except OSError:
        return False
    return begins.startswith(TABLE_BEGINS)
