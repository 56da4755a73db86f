"""Audit of a table: leaks between its splits, contradictory labels and unreadable files.

The audit does not rely on the table's digests: it reads and hashes every file again, and compares
its picture with all others.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from pipeline.domain import Array
from pipeline.errors import ImageError
from pipeline.io import decode, read_file
from pipeline.progress import Progress

from ..samples import Index, Sample, Split
from .near_duplicates import (
    DETAIL_SHAPE,
    PRINT_SHAPE,
    Half,
    Rows,
    candidates,
    describe,
    squash,
    verify,
)
from .rotated_duplicates import (
    RINGS_SHAPE,
    amplitudes,
    describe_rings,
    tilt_candidates,
    verify_tilt,
)

TWINS_KEPT = 8
"""Candidates verified for each picture and split: a picture stored a hundred times is reported
with its nearest copies, not with all five thousand pairs."""
TILTED_KEPT = 4
"""The same for copies rotated by any angle: in all trials the copy ranked first or second."""


class Kind(StrEnum):
    """Kind of a finding."""

    SAME_FILE = "same file"
    NEAR_DUPLICATE = "near duplicate"
    SAME_GROUP = "same group"
    SAME_STUDY = "same study"
    LABELS = "contradictory labels"
    REGIONS = "contradictory regions"
    UNREADABLE = "unreadable"
    CHANGED = "changed since the table"


TWINS = (Kind.SAME_FILE, Kind.NEAR_DUPLICATE)


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of a table, or one note.

    Attributes:
        kind: Kind of the finding.
        samples: The rows: two for twins and contradictions, one for a file, and for a group or
            study every row that is not excluded.
        likeness: Correlation of the fine structure of two pictures, 1 for equal files; None if
            the finding does not compare pictures.
        detail: Further description; may be empty.
    """

    kind: Kind
    samples: tuple[Sample, ...]
    likeness: float | None = None
    detail: str = ""

    @property
    def splits(self) -> tuple[Split, ...]:
        """Distinct splits of the rows, in their order."""
        return tuple(dict.fromkeys(sample.split for sample in self.samples))

    @property
    def leak(self) -> bool:
        """Whether the finding connects two of train, val and test."""
        joining = (*TWINS, Kind.SAME_GROUP, Kind.SAME_STUDY)
        return self.kind in joining and len(set(self.splits) - {"excluded"}) > 1

    @property
    def failure(self) -> bool:
        """Whether the table must be fixed before use: a leak, or a row without a reliable label."""
        faulty = self.kind in (Kind.LABELS, Kind.UNREADABLE)
        return self.leak or (faulty and "excluded" not in self.splits)


@dataclass(frozen=True, slots=True)
class Audit:
    """Result of an audit.

    Attributes:
        index: The table.
        findings: Failures first, then by kind; near duplicates with the lowest likeness first.
        seconds: Duration of each step.
    """

    index: Index
    findings: tuple[Finding, ...]
    seconds: Mapping[str, float]

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """Findings that connect two of train, val and test."""
        return tuple(finding for finding in self.findings if finding.leak)

    @property
    def failures(self) -> tuple[Finding, ...]:
        """Leaks, contradictory labels and unreadable pictures outside ``excluded``."""
        return tuple(finding for finding in self.findings if finding.failure)

    @property
    def notes(self) -> tuple[Finding, ...]:
        """Findings that are not failures."""
        return tuple(finding for finding in self.findings if not finding.failure)

    @property
    def ungrouped(self) -> tuple[Finding, ...]:
        """Twins of different groups, none excluded: a new split by group may separate them."""
        return tuple(
            finding
            for finding in self.findings
            if finding.kind in TWINS
            and "excluded" not in finding.splits
            and len({sample.group for sample in finding.samples}) > 1
        )

    def twins_of(self, split: Split, other: Split) -> int:
        """Number of rows of ``split`` with the same or nearly the same picture in ``other``."""
        twins = {
            id(sample)
            for finding in self.findings
            if finding.kind in TWINS and set(finding.splits) == {split, other}
            for sample in finding.samples
            if sample.split == split
        }
        return len(twins)


def audit(index: Index, progress: Progress) -> Audit:
    """Find everything that connects the splits of a table, and contradictions in it.

    Args:
        index: The table, from :func:`stages.data.index.read_table`.
        progress: Advanced once per row.
    """
    started = time.perf_counter()
    looks = _read(index.samples, progress)
    read = time.perf_counter()
    same = list(_same_files(index.samples, looks))
    near = list(_near_duplicates(index.samples, looks))
    compared = time.perf_counter()
    findings = [
        *same,
        *near,
        *_divided(index.samples, Kind.SAME_GROUP),
        *_divided(index.samples, Kind.SAME_STUDY),
        *_contradictions([*same, *near]),
        *_faulty(index.samples, looks),
    ]
    order = list(Kind)
    findings.sort(key=lambda f: (not f.failure, order.index(f.kind), f.likeness or 0.0))
    seconds = {"read": read - started, "compare": compared - read}
    return Audit(index, tuple(findings), seconds)


@dataclass(frozen=True, slots=True)
class _Looks:
    """Descriptors of N rows; about 13 KB per picture.

    Attributes:
        sha256: N digests of the current files; empty for one that cannot be read.
        errors: N decoding errors; empty for a readable picture.
        prints: (N, 256) float32.
        details: (N, 4096) float16.
        rings: (N, 2, 28, 43) float16.
    """

    sha256: list[str]
    errors: list[str]
    prints: Array
    details: Half
    rings: Half


def _read(samples: Sequence[Sample], progress: Progress) -> _Looks:
    """Read and describe every picture; record the error of an unreadable one."""
    count = len(samples)
    looks = _Looks(
        [""] * count,
        [""] * count,
        np.zeros((count, *PRINT_SHAPE), np.float32),
        np.zeros((count, *DETAIL_SHAPE), np.float16),
        np.zeros((count, *RINGS_SHAPE), np.float16),
    )

    def read(i: int) -> None:
        path = samples[i].path
        try:
            content, looks.sha256[i] = read_file(path)
            image = next(iter(decode(content, path, looks.sha256[i])))
        except ImageError as error:
            looks.errors[i] = str(error)
            return
        square = squash(image.pixels)
        looks.prints[i], looks.details[i] = describe(square)
        looks.rings[i] = describe_rings(square, image.pixels.shape)

    # Threads suffice: decoding and the transforms release the GIL.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for _ in pool.map(read, range(count)):
            progress.advance()
    return looks


def _same_files(samples: Sequence[Sample], looks: _Looks) -> Iterator[Finding]:
    """Pairs of rows with equal content: each row with the first one of every split."""
    contents: dict[str, list[Sample]] = defaultdict(list)
    for sample, digest in zip(samples, looks.sha256, strict=True):
        if digest:
            contents[digest].append(sample)
    for rows in contents.values():
        firsts: dict[Split, Sample] = {}
        for row in rows:
            firsts.setdefault(row.split, row)
        reported = set()
        for row in rows:
            for first in firsts.values():
                pair = frozenset((id(row), id(first)))
                if len(pair) == 2 and pair not in reported:
                    reported.add(pair)
                    yield Finding(Kind.SAME_FILE, (first, row), 1.0)


def _near_duplicates(samples: Sequence[Sample], looks: _Looks) -> Iterator[Finding]:
    """Pairs of different files that show the same exposure.

    Of equal files in one split only the first is compared.
    """
    rows: dict[tuple[str, Split], int] = {}
    for i, sample in enumerate(samples):
        if not looks.errors[i]:
            rows.setdefault((looks.sha256[i], sample.split), i)
    if len(rows) < 2:
        return
    chosen = np.array(list(rows.values()), np.intp)
    parts = [samples[i].split for i in chosen]
    contents = np.array([looks.sha256[i] for i in chosen])

    def to_rows(first: Rows, second: Rows) -> tuple[Rows, Rows]:
        other = contents[first] != contents[second]
        return chosen[first[other]], chosen[second[other]]

    pairs = to_rows(*candidates(looks.prints[chosen], parts, TWINS_KEPT))
    matches = verify(*pairs, looks.prints, looks.details)
    known = {(match.first, match.second) for match in matches}
    rings = np.stack([amplitudes(looks.rings[i]) for i in chosen])
    pairs = to_rows(*tilt_candidates(rings, parts, TILTED_KEPT))
    tilted = verify_tilt(*pairs, looks.rings)
    matches += [match for match in tilted if (match.first, match.second) not in known]
    for match in matches:
        pair = samples[match.first], samples[match.second]
        yield Finding(Kind.NEAR_DUPLICATE, pair, match.likeness, match.how)


def _divided(samples: Sequence[Sample], kind: Kind) -> Iterator[Finding]:
    """Groups, or studies, with rows in more than one of train, val and test."""
    members: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        key = sample.group if kind is Kind.SAME_GROUP else sample.study
        if key and sample.split != "excluded":
            members[key].append(sample)
    for key, rows in members.items():
        counts = Counter(row.split for row in rows)
        if len(counts) > 1:
            parts = ", ".join(f"{n} in {split}" for split, n in counts.items())
            yield Finding(kind, tuple(rows), detail=f"{key}: {parts}")


def _contradictions(twins: Sequence[Finding]) -> Iterator[Finding]:
    """Twins with different labels, or with different known regions."""
    for twin in twins:
        first, second = twin.samples
        if first.label_kind == second.label_kind and first.label != second.label:
            detail = f"{first.label_kind} {first.label} and {second.label}"
            yield Finding(Kind.LABELS, twin.samples, twin.likeness, detail)
        # Unknown regions are NaN, for which the comparison is false.
        distance = np.abs(first.region_vector() - second.region_vector())
        if (distance > 0).any():
            detail = f"{first.regions} and {second.regions}"
            yield Finding(Kind.REGIONS, twin.samples, twin.likeness, detail)


def _faulty(samples: Sequence[Sample], looks: _Looks) -> Iterator[Finding]:
    """Unreadable pictures, and files whose digest differs from the table."""
    for sample, digest, error in zip(samples, looks.sha256, looks.errors, strict=True):
        if error:
            yield Finding(Kind.UNREADABLE, (sample,), detail=error)
        if digest and sample.sha256 and digest != sample.sha256:
            yield Finding(Kind.CHANGED, (sample,), detail=f"found {digest}")
