"""Output of an audit: an HTML page, a table of all findings, and the counts."""

from __future__ import annotations

import base64
import json
import os
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from PIL import Image

from pipeline.errors import ImageError
from pipeline.io import decode, read_file

from ..samples import SPLITS, Sample, Split
from .audit import Audit, Finding, Kind

PAGE, TABLE, COUNTS = "audit.html", "pairs.csv", "audit.json"

MAX_FINDINGS = 60
"""Findings of each kind on the page, about 20 KB each."""
_THUMBNAIL_PX = 256
_SAMPLE_FIELDS = ("split", "label", "group", "study")
COLUMNS = (
    *("kind", "failure", "leak", "likeness", "detail", "pictures"),
    *(f"{name}_{i}" for i in (1, 2) for name in ("path", *_SAMPLE_FIELDS)),
)
"""Columns of ``pairs.csv``."""
_EVALUATED: tuple[Split, ...] = ("val", "test")


@dataclass(frozen=True, slots=True)
class _Picture:
    """One side of a pair on the page; ``source`` is a data: URI, or empty when unreadable."""

    sample: Sample
    path: str
    source: str


def write_audit(result: Audit, folder: Path) -> None:
    """Write ``audit.html``, ``pairs.csv`` and ``audit.json``; the page is self-contained.

    Args:
        result: The audit.
        folder: Created if missing; files of an earlier audit are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(result, finding) for finding in result.findings]
    table = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)
    table.to_csv(folder / TABLE, index=False, lineterminator="\n")
    counts = json.dumps(summary(result), indent=2) + "\n"
    (folder / COUNTS).write_text(counts, encoding="utf-8")
    (folder / PAGE).write_text(_page(result), encoding="utf-8")


def summary(result: Audit) -> dict[str, Any]:
    """The content of ``audit.json``: counts by kind and split."""
    samples = result.index.samples
    rows = Counter(sample.split for sample in samples)
    return {
        "index": str(result.index.source),
        "index_sha256": result.index.digest,
        "pictures": {split: rows[split] for split in SPLITS},
        "leaks": _by_kind(result.leaks),
        "failures": _by_kind(result.failures),
        "notes": _by_kind(result.notes),
        "in_train": {
            split: {"pictures": rows[split], "with_twin": result.twins_of(split, "train")}
            for split in _EVALUATED
        },
        "twins_in_other_groups": len(result.ungrouped),
        "seconds": {step: round(value, 2) for step, value in result.seconds.items()},
    }


def describe_audit(result: Audit) -> str:
    """Summary of an audit in a few lines of text."""
    counts = summary(result)
    lines = [f"{counts['index']}: {len(result.index.samples)} pictures"]
    for split, part in counts["in_train"].items():
        if part["pictures"]:
            share = part["with_twin"] / part["pictures"]
            lines.append(
                f"  {split}: {part['with_twin']} of {part['pictures']} pictures ({share:.1%})"
                " are in train too, unchanged or rotated, mirrored, rescaled or recompressed"
            )
    for title, name in (("failures", "failures"), ("not failures", "notes")):
        parts = [f"{count} {kind}" for kind, count in counts[name].items()]
        lines.append(f"  {title}: {', '.join(parts) or 'none'}")
    if result.ungrouped:
        lines.append(f"  twins of different groups: {len(result.ungrouped)}; a new split may leak")
    if result.leaks:
        lines.append("the splits leak: scores on this table are too good")
    elif result.failures:
        lines.append("no leak was found, but some pictures have faults")
    else:
        lines.append("no leak was found")
    return "\n".join(lines)


def _by_kind(findings: tuple[Finding, ...]) -> dict[str, int]:
    counts = Counter(finding.kind for finding in findings)
    return {kind.value: counts[kind] for kind in Kind if counts[kind]}


def _row(result: Audit, finding: Finding) -> dict[str, object]:
    """One line of ``pairs.csv``; for a group, one row from each of its first two splits."""
    row: dict[str, object] = {
        "kind": finding.kind.value,
        "failure": int(finding.failure),
        "leak": int(finding.leak),
        "likeness": "" if finding.likeness is None else f"{finding.likeness:.4f}",
        "detail": finding.detail,
        "pictures": len(finding.samples),
    }
    for i, sample in enumerate(_pair(finding), start=1):
        row[f"path_{i}"] = _place(result, sample)
        for name in _SAMPLE_FIELDS:
            row[f"{name}_{i}"] = getattr(sample, name)
    return row


def _pair(finding: Finding) -> tuple[Sample, ...]:
    """The rows to display: both of a pair; for a group, one from each of its first two splits."""
    if len(finding.samples) <= 2:
        return finding.samples
    first = finding.samples[0]
    return first, next((s for s in finding.samples if s.split != first.split), finding.samples[1])


def _place(result: Audit, sample: Sample) -> str:
    """The path relative to the table's folder, as in the table."""
    return Path(os.path.relpath(sample.path, result.index.source.parent)).as_posix()


def _page(result: Audit) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("stages.data", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = []
    for kind in Kind:
        findings = [finding for finding in result.findings if finding.kind is kind]
        if findings:
            pairs = [(f, [_picture(result, s) for s in _pair(f)]) for f in findings[:MAX_FINDINGS]]
            sections.append({"kind": kind.value, "count": len(findings), "pairs": pairs})
    page: str = environment.get_template(PAGE).render(
        lines=describe_audit(result).splitlines(), sections=sections, table=TABLE
    )
    return page + "\n"


def _picture(result: Audit, sample: Sample) -> _Picture:
    path = _place(result, sample)
    try:
        content, digest = read_file(sample.path)
        image = next(iter(decode(content, sample.path, digest)))
    except ImageError:
        return _Picture(sample, path, "")
    small = Image.fromarray((image.pixels * 255).round().astype(np.uint8))
    small.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    stored = BytesIO()
    small.save(stored, format="JPEG", quality=80)
    encoded = base64.b64encode(stored.getvalue()).decode("ascii")
    return _Picture(sample, path, f"data:image/jpeg;base64,{encoded}")
