"""An audit written down: a page to look at, a table of every finding, and the counts."""

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

from .audit import Audit, Finding, Kind
from .index import SPLITS, Sample, Split

PAGE, TABLE, COUNTS = "audit.html", "pairs.csv", "audit.json"

SHOWN = 60
"""Findings of each kind on the page, about 20 KB each."""
_THUMBNAIL_PX = 256
_TOLD = ("split", "label", "group", "study")
COLUMNS = (
    *("kind", "failure", "leak", "likeness", "detail", "pictures"),
    *(f"{name}_{i}" for i in (1, 2) for name in ("path", *_TOLD)),
)
"""Of ``pairs.csv``."""
_EVALUATED: tuple[Split, ...] = ("val", "test")


@dataclass(frozen=True, slots=True)
class _Picture:
    """One side of a pair on the page; ``source`` is a data: URI, or empty when unreadable."""

    sample: Sample
    path: str
    source: str


def write_audit(found: Audit, folder: Path) -> None:
    """Write ``audit.html``, ``pairs.csv`` and ``audit.json``; the page needs no other file.

    Args:
        found: The audit.
        folder: Made when it is not there; files of an earlier audit are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(found, finding) for finding in found.findings]
    table = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)
    table.to_csv(folder / TABLE, index=False, lineterminator="\n")
    counts = json.dumps(summary(found), indent=2) + "\n"
    (folder / COUNTS).write_text(counts, encoding="utf-8")
    (folder / PAGE).write_text(_page(found), encoding="utf-8")


def summary(found: Audit) -> dict[str, Any]:
    """The counts of ``audit.json``: plain numbers and words."""
    samples = found.index.samples
    rows = Counter(sample.split for sample in samples)
    return {
        "index": str(found.index.source),
        "index_sha256": found.index.digest,
        "pictures": {split: rows[split] for split in SPLITS},
        "leaks": _by_kind(found.leaks),
        "failures": _by_kind(found.failures),
        "notes": _by_kind(found.notes),
        "in_train": {
            split: {"pictures": rows[split], "with_twin": found.twins_of(split, "train")}
            for split in _EVALUATED
        },
        "twins_in_other_groups": len(found.ungrouped),
        "seconds": {step: round(value, 2) for step, value in found.seconds.items()},
    }


def describe_audit(found: Audit) -> str:
    """The outcome in a few lines."""
    counts = summary(found)
    lines = [f"{counts['index']}: {len(found.index.samples)} pictures"]
    for split, part in counts["in_train"].items():
        if part["pictures"]:
            share = part["with_twin"] / part["pictures"]
            lines.append(
                f"  {split}: {part['with_twin']} of {part['pictures']} pictures ({share:.1%})"
                " are in train too, as they are or turned, mirrored, rescaled or recompressed"
            )
    for title, name in (("failures", "failures"), ("not failures", "notes")):
        told = [f"{count} {kind}" for kind, count in counts[name].items()]
        lines.append(f"  {title}: {', '.join(told) or 'none'}")
    if found.ungrouped:
        lines.append(f"  twins of different groups: {len(found.ungrouped)}; a new split may leak")
    if found.leaks:
        lines.append("the splits leak: scores on this table are too good")
    elif found.failures:
        lines.append("no leak was found, but not every picture can be vouched for")
    else:
        lines.append("no leak was found")
    return "\n".join(lines)


def _by_kind(findings: tuple[Finding, ...]) -> dict[str, int]:
    counts = Counter(finding.kind for finding in findings)
    return {kind.value: counts[kind] for kind in Kind if counts[kind]}


def _row(found: Audit, finding: Finding) -> dict[str, object]:
    """One line of ``pairs.csv``; of a group, a row of each of its first two splits."""
    row: dict[str, object] = {
        "kind": finding.kind.value,
        "failure": int(finding.failure),
        "leak": int(finding.leak),
        "likeness": "" if finding.likeness is None else f"{finding.likeness:.4f}",
        "detail": finding.detail,
        "pictures": len(finding.samples),
    }
    for i, sample in enumerate(_pair(finding), start=1):
        row[f"path_{i}"] = _place(found, sample)
        for name in _TOLD:
            row[f"{name}_{i}"] = getattr(sample, name)
    return row


def _pair(finding: Finding) -> tuple[Sample, ...]:
    """The rows to show: all of a pair, one of each of the first two splits of a group."""
    if len(finding.samples) <= 2:
        return finding.samples
    first = finding.samples[0]
    return first, next((s for s in finding.samples if s.split != first.split), finding.samples[1])


def _place(found: Audit, sample: Sample) -> str:
    """The path as the table has it: from the table's folder."""
    return Path(os.path.relpath(sample.path, found.index.source.parent)).as_posix()


def _page(found: Audit) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("stages.data", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = []
    for kind in Kind:
        findings = [finding for finding in found.findings if finding.kind is kind]
        if findings:
            shown = [(f, [_picture(found, s) for s in _pair(f)]) for f in findings[:SHOWN]]
            sections.append({"kind": kind.value, "count": len(findings), "shown": shown})
    page: str = environment.get_template(PAGE).render(
        lines=describe_audit(found).splitlines(), sections=sections, table=TABLE
    )
    return page + "\n"


def _picture(found: Audit, sample: Sample) -> _Picture:
    path = _place(found, sample)
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
