"""The layouts that data sets come in, and which one a folder has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError

from ..index import Sample
from . import dicom, folders, fracatlas, mura, table
from .pictures import Watch, hidden, named


@dataclass(frozen=True, slots=True)
class Layout:
    """One published form of a data set.

    Attributes:
        wanted: What it looks like, in words.
        recognise: Whether a path plainly has it.
        read: Its rows, with the data set's own division in ``split``; takes the path, ``watch``
            and the options.
        options: What else ``read`` takes, by the names of its parameters.
    """

    wanted: str
    recognise: Callable[[Path], bool]
    read: Callable[..., list[Sample]]
    options: tuple[str, ...] = ()


LAYOUTS: Mapping[str, Layout] = {
    "table": Layout(table.WANTED, table.is_table, table.read_listed, ("columns", "label_kind")),
    "fracatlas": Layout(fracatlas.WANTED, fracatlas.is_fracatlas, fracatlas.read_fracatlas),
    "mura": Layout(mura.WANTED, mura.is_mura, mura.read_mura),
    "folders": Layout(folders.WANTED, folders.is_folders, folders.read_folders, ("label_kind",)),
    "dicom": Layout(
        dicom.WANTED, dicom.is_dicom, dicom.read_studies, ("labels", "columns", "label_kind")
    ),
}
"""By name, the most particular first: FracAtlas has class folders too."""


def recognise(source: Path) -> str:
    """The name of the first layout that a path plainly has.

    Raises:
        UsageError: It has none, with what was found and what there is.
    """
    for name, layout in LAYOUTS.items():
        if layout.recognise(source):
            return name
    forms = "".join(f"\n  - {name}: {layout.wanted}" for name, layout in LAYOUTS.items())
    raise UsageError(
        f"{source}: found {_found(source)}, wanted one of these layouts:{forms}",
        "say which it is with --layout",
    )


def read_layout(
    name: str, source: Path, watch: Watch, options: Mapping[str, object]
) -> list[Sample]:
    """The rows of a data set in a layout.

    Args:
        name: One of ``LAYOUTS``.
        source: A folder, or a file for ``table``.
        watch: Told of the progress.
        options: Those that the user gave, by the names of parameters.

    Raises:
        UsageError: The layout does not take one of them, and whatever ``read`` raises.
        InputMissingError: The path has not this layout.
        IndexFaultsError: With every fault of the data set.
    """
    layout = LAYOUTS[name]
    for option in options:
        if option not in layout.options:
            takers = [other for other, one in LAYOUTS.items() if option in one.options]
            raise UsageError(
                f"--{option.replace('_', '-')} is for layout {' or '.join(takers)}, "
                f"and {source} is read as {name}"
            )
    return layout.read(source, watch=watch, **options)


def _found(source: Path) -> str:
    if not source.is_dir():
        return f"a file of kind {source.suffix or 'unknown'}"
    entries = sorted(path for path in source.iterdir() if not hidden(path.name))
    folders_in = [f"{path.name}/" for path in entries if path.is_dir()]
    files = [path.name for path in entries if not path.is_dir()]
    return named([*folders_in, *files]) or "an empty folder"
