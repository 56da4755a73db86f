"""Grouping of pictures of the same exposure in a data set; conflicting labels exclude them.

Identical files are grouped here. ``fxpipe audit`` finds rotated, scaled and recompressed copies;
they are grouped when its pairs are confirmed.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from ..samples import Sample

logger = logging.getLogger(__name__)

CONFLICT = "label_conflict"
_NO_PICTURE = {"unreadable", "not_a_radiograph"}


def merge_identical_files(samples: Sequence[Sample]) -> list[Sample]:
    """Exclude equal files with different labels, and join the groups that contain equal files.

    A joined group takes the name of the first one. Labels of different kinds do not contradict each
    other. Files without a picture (empty ones, for example) are ignored.
    """
    contents: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(samples):
        if row.sha256 and not _NO_PICTURE & set(row.flags.split(";")):
            contents[row.sha256].append(i)
    twins = [members for members in contents.values() if len(members) > 1]
    return _settle(samples, twins, "an identical file")


def settle_pairs(samples: Sequence[Sample], pairs: Sequence[tuple[int, int]]) -> list[Sample]:
    """As :func:`merge_identical_files`, for pairs of row numbers from an audit."""
    return _settle(samples, pairs, "the same exposure")


def _settle(samples: Sequence[Sample], twins: Sequence[Sequence[int]], shared: str) -> list[Sample]:
    rows = list(samples)
    contradictory = {i for m in twins if _contradict([rows[i] for i in m]) for i in m}
    for i in contradictory:
        rows[i] = flagged(rows[i], CONFLICT)
    if contradictory:
        logger.warning("%d pictures share %s with a different label", len(contradictory), shared)
    groups = _join(rows, twins, shared)
    return [replace(row, group=groups.get(row.group, row.group)) for row in rows]


def flagged(row: Sample, flag: str) -> Sample:
    """The row, excluded, with an additional flag."""
    flags = [word for word in row.flags.split(";") if word]
    if flag not in flags:
        flags.append(flag)
    return replace(row, flags=";".join(flags), split="excluded")


def _contradict(rows: Sequence[Sample]) -> bool:
    labels = {(row.label_kind, row.label) for row in rows if row.label is not None}
    return len({kind for kind, _ in labels}) < len(labels)


def _join(rows: Sequence[Sample], twins: Sequence[Sequence[int]], shared: str) -> dict[str, str]:
    """New name of each renamed group: union-find with the earliest group as root."""
    order: dict[str, int] = {}
    for row in rows:
        order.setdefault(row.group, len(order))
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        while group in parent:
            group = parent[group]
        return group

    for members in twins:
        roots = {root(rows[i].group) for i in members}
        first = min(roots, key=order.__getitem__)
        parent.update(dict.fromkeys(roots - {first}, first))
    if parent:
        into = {root(group) for group in parent}
        logger.warning(
            "%d groups were joined into %d, because they share %s",
            len(parent) + len(into),
            len(into),
            shared,
        )
    return {group: root(group) for group in parent}
