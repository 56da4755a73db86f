"""Inference of the acquiring machine from a picture's aspect ratio.

FracAtlas records neither hospital nor machine, but its plates have two shapes. One reader's are
1760 x 2140 px, mostly stored as 373 x 454 (some exposures exist in both sizes, so the number of
pixels is not informative); the other's are 2304 x 2880. Scaled copies keep the shape, and rotated
pictures come from the same machine. So the ratio of the sides identifies the machine, within a
data set: equal shapes in different data sets are different machines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.domain import REGIONS
from pipeline.errors import UnreadableImageError
from pipeline.io import decode, read_file

from ..samples import Sample
from .adapters.pictures import Watch, each, unwatched

MIN_GROUPS = 20
"""Minimum number of groups with a supported region in view for an acquisition to be left out."""


def acquisition(width_px: int, height_px: int) -> str:
    """The longer side as a multiple of the shorter one, to two decimals: ``1.22`` or ``1.25``.

    Sides of 300 px and more, rounded to whole pixels, move the ratio by less than 0.005.
    """
    return f"{max(width_px, height_px) / min(width_px, height_px):.2f}"


def read_acquisitions(samples: Sequence[Sample], watch: Watch = unwatched) -> list[str]:
    """Data set and :func:`acquisition` of each sample, such as ``fracatlas 1.22``.

    The data set is the part of the sample's origin before the first ``/``.

    Args:
        samples: Rows of a table; if a file has several pictures, the first is used.
        watch: Progress callback.

    Raises:
        ImageError: A file cannot be read.
    """
    shapes = each([sample.path for sample in samples], _shape, watch)
    return [
        f"{sample.origin.split('/')[0]} {acquisition(width, height)}"
        for sample, (height, width) in zip(samples, shapes, strict=True)
    ]


def _shape(path: Path) -> tuple[int, int]:
    """(H, W) of a file's first picture in px."""
    content, digest = read_file(path)
    image = next(decode(content, path, digest), None)
    if image is None:
        raise UnreadableImageError(f"{path.name}: the file has no picture")
    return image.pixels.shape[0], image.pixels.shape[1]


def keep_groups_whole(groups: Sequence[str], names: Sequence[str]) -> tuple[list[str], int]:
    """Assign every picture to the acquisition of its group.

    A group of several acquisitions is assigned to that of most of its pictures; on a tie, to the
    one with the most pictures in total.

    Args:
        groups: (N,) group of each picture.
        names: (N,) acquisition of each picture.

    Returns:
        (N,) acquisition of each picture's group, and how many groups had several.
    """
    totals = Counter(names)
    members: dict[str, Counter[str]] = {}
    for group, name in zip(groups, names, strict=True):
        members.setdefault(group, Counter())[name] += 1
    chosen = {
        group: max((count, totals[name], name) for name, count in counts.items())[-1]
        for group, counts in members.items()
    }
    return [chosen[group] for group in groups], sum(len(counts) > 1 for counts in members.values())


def left_out(samples: Sequence[Sample], names: Sequence[str]) -> list[str]:
    """The acquisitions with enough groups to test on, sorted by name.

    Args:
        samples: Rows of a table.
        names: Acquisition of each.
    """
    groups_of: dict[str, set[str]] = {}
    for sample, name in zip(samples, names, strict=True):
        if any(sample.shows(region) for region in REGIONS):
            groups_of.setdefault(name, set()).add(sample.group)
    return sorted(name for name, groups in groups_of.items() if len(groups) >= MIN_GROUPS)
