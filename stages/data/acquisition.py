"""By which machine a picture was acquired, as far as its size betrays that.

FracAtlas names no hospital and no machine, but its plates have two shapes. One reader's are
1760 x 2140 px, mostly stored as 373 x 454 (some exposures are there in both sizes, so that the
number of pixels alone tells nothing); the other's are 2304 x 2880. Scaled copies keep the shape,
and pictures that lie on their side are of the same machine. So the ratio of the sides is what
tells machines apart, within a data set: another set's plates of the same shape are another's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.domain import REGIONS
from pipeline.errors import UnreadableImageError
from pipeline.io import decode, read_file

from .adapters.pictures import Watch, each, unwatched
from .index import Sample

FEWEST_GROUPS = 20
"""Groups with a supported region in view that an acquisition needs to be left out and tested."""


def acquisition(width_px: int, height_px: int) -> str:
    """The longer side as a multiple of the shorter one, to two decimals: ``1.22`` or ``1.25``.

    Sides of 300 px and more, rounded to whole pixels, move the ratio by less than 0.005.
    """
    return f"{max(width_px, height_px) / min(width_px, height_px):.2f}"


def read_acquisitions(samples: Sequence[Sample], watch: Watch = unwatched) -> list[str]:
    """Data set and :func:`acquisition` of each sample, such as ``fracatlas 1.22``.

    The data set is what stands before the first ``/`` of the sample's origin.

    Args:
        samples: Rows of a table; of a file with several pictures the first is looked at.
        watch: Told of the progress.

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
        raise UnreadableImageError(f"{path.name}: found a file without a picture")
    return image.pixels.shape[0], image.pixels.shape[1]


def keep_groups_whole(groups: Sequence[str], names: Sequence[str]) -> tuple[list[str], int]:
    """Each picture's acquisition, groups undivided.

    A group of several acquisitions goes to that of most of its pictures, and among equals to the
    one with most pictures in all.

    Args:
        groups: (N,) group of each picture.
        names: (N,) acquisition of each picture.

    Returns:
        (N,) acquisition of each picture's group, and how many groups had several.
    """
    every = Counter(names)
    members: dict[str, Counter[str]] = {}
    for group, name in zip(groups, names, strict=True):
        members.setdefault(group, Counter())[name] += 1
    chosen = {
        group: max((count, every[name], name) for name, count in counts.items())[-1]
        for group, counts in members.items()
    }
    return [chosen[group] for group in groups], sum(len(counts) > 1 for counts in members.values())


def left_out(samples: Sequence[Sample], names: Sequence[str]) -> list[str]:
    """The acquisitions that are worth leaving out, in order: enough groups to test on.

    Args:
        samples: Rows of a table.
        names: Acquisition of each.
    """
    shown: dict[str, set[str]] = {}
    for sample, name in zip(samples, names, strict=True):
        if any(sample.shows(region) for region in REGIONS):
            shown.setdefault(name, set()).add(sample.group)
    return sorted(name for name, groups in shown.items() if len(groups) >= FEWEST_GROUPS)
