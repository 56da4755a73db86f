"""A folder of pictures that show no supported region: chests, knees, photographs."""

from __future__ import annotations

from pathlib import Path

from ..index import NONE, Sample
from .pictures import Watch, looked_at, unwatched, walk


def read_negatives(folder: Path, watch: Watch = unwatched) -> list[Sample]:
    """Rows without a label, each its own group; broken pictures are flagged and excluded.

    Raises:
        InputMissingError: No such folder, or no file in it.
    """
    rows = []
    for path in walk(folder):
        group = f"{folder.name}/{path.relative_to(folder).as_posix()}"
        rows.append(Sample(path, NONE, None, "", group, "", "train", folder.name, "", ""))
    return looked_at(rows, watch)
