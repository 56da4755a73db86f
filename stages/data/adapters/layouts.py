"""Supported data set layouts and their detection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError

from ...samples import Sample
from . import dicom, folders, fracatlas, mura, table
from .pictures import Watch, hidden, named


@dataclass(frozen=True, slots=True)
class Layout:
    """One data set layout.

    Attributes:
        description: Expected files, for messages.
        recognise: Whether a path has this layout.
        read: Reads the rows, with the data set's split; takes the path, ``watch`` and the options.
        options: Names of the optional parameters of ``read``.
    """

    description: str
    recognise: Callable[[Path], bool]
    read: Callable[..., list[Sample]]
    options: tuple[str, ...] = ()


LAYOUTS: Mapping[str, Layout] = {
    "table": Layout(
        table.DESCRIPTION, table.is_table, table.read_listed, ("columns", "label_kind")
    ),
    "fracatlas": Layout(fracatlas.DESCRIPTION, fracatlas.is_fracatlas, fracatlas.read_fracatlas),
    "mura": Layout(mura.DESCRIPTION, mura.is_mura, mura.read_mura),
    "folders": Layout(
        folders.DESCRIPTION, folders.is_folders, folders.read_folders, ("label_kind",)
    ),
    "dicom": Layout(
        dicom.DESCRIPTION, dicom.is_dicom, dicom.read_studies, ("labels", "columns", "label_kind")
    ),
}
"""By name, the most specific first: FracAtlas also has class folders."""


def recognise(source: Path) -> str:
    """Detect the layout of a path: the first one that matches.

    Raises:
        UsageError: No layout matches; the message lists the content and the layouts.
    """
    for name, layout in LAYOUTS.items():
        if layout.recognise(source):
            return name
    forms = "".join(f"\n  - {name}: {layout.description}" for name, layout in LAYOUTS.items())
    raise UsageError(
        f"{source}: found {_content(source)}, expected one of these layouts:{forms}",
        "name the layout with --layout",
    )


def read_layout(
    name: str, source: Path, watch: Watch, options: Mapping[str, object]
) -> list[Sample]:
    """Read the rows of a data set in a given layout.

    Args:
        name: One of ``LAYOUTS``.
        source: A folder, or a file for ``table``.
        watch: Shows the progress.
        options: The user's options by parameter name.

    Raises:
        UsageError: The layout does not have an option, or as ``read`` raises.
        InputMissingError: The path does not have this layout.
        IndexFaultsError: The data set has faults; all are listed.
    """
    layout = LAYOUTS[name]
    for option in options:
        if option not in layout.options:
            takers = [other for other, entry in LAYOUTS.items() if option in entry.options]
            raise UsageError(
                f"--{option.replace('_', '-')} applies to layout {' or '.join(takers)}, "
                f"but {source} is read as {name}"
            )
    return layout.read(source, watch=watch, **options)


def _content(source: Path) -> str:
    if not source.is_dir():
        return f"a file of kind {source.suffix or 'unknown'}"
    entries = sorted(path for path in source.iterdir() if not hidden(path.name))
    folders_in = [f"{path.name}/" for path in entries if path.is_dir()]
    files = [path.name for path in entries if not path.is_dir()]
    return named([*folders_in, *files]) or "an empty folder"
