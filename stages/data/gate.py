"""No training on a table that leaks, unless somebody says that it may."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from pipeline.bundle import write_json
from pipeline.errors import IndexFaultsError
from pipeline.progress import Progress

from .audit import TWINS, Kind, audit
from .index import Index

log = logging.getLogger(__name__)

Fault = tuple[str, str, str]
"""What was found (a :class:`stages.data.audit.Kind`), and the two rows (or one twice), by path."""


def refuse_leaks(tables: Sequence[Index], cache: Path, allowed: bool, progress: Progress) -> None:
    """Audit the pictures once, and compare what was found with the splits of each table.

    Args:
        tables: Tables of the same pictures, such as the folds of a cross-validation.
        cache: Folder that keeps what was found, so that stages trained one after another on the
            same files need not look again.
        allowed: Warn only.
        progress: Advanced once a picture.

    Raises:
        IndexFaultsError: A picture, or nearly the same one, is in two splits, or has two labels,
            or cannot be read.
    """
    faults = _known(tables[0], cache, progress)
    found: list[str] = []
    for table in tables:
        splits = {str(sample.path): sample.split for sample in table.samples}
        for kind, one, other in faults:
            pair = {splits.get(one, "excluded"), splits.get(other, "excluded")}
            if "excluded" in pair or (kind in TWINS and len(pair) == 1):
                continue
            words = f"{one}: {kind}" + ("" if one == other else f" as {other}")
            found.append(f"{words} ({' and '.join(sorted(pair))})")
    found = list(dict.fromkeys(found))
    if not found:
        return
    source = str(tables[0].source)
    if allowed:
        log.warning("%s: %d leak(s) or contradictions, allowed: %s", source, len(found), found[0])
        return
    error = IndexFaultsError(source, found)
    error.hint = (
        "look at them with `fxpipe audit`, and keep twins together with `fxpipe index … "
        "--groups-from audit/pairs.csv`; --allow-leaks trains nevertheless"
    )
    raise error


def _known(table: Index, cache: Path, progress: Progress) -> list[Fault]:
    """What an audit of these files found, now or before."""
    key = "".join(f"{s.path} {s.sha256} {s.label} {s.split}\n" for s in table.samples)
    file = cache / f"audit-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    if file.is_file():
        return [(kind, one, other) for kind, one, other in json.loads(file.read_text("utf-8"))]
    log.info("%s: looking for leaks among %d pictures", table.source, len(table.samples))
    kinds = (*TWINS, Kind.LABELS, Kind.UNREADABLE)
    faults = [
        (str(finding.kind), str(finding.samples[0].path), str(finding.samples[-1].path))
        for finding in audit(table, progress).findings
        if finding.kind in kinds
    ]
    cache.mkdir(parents=True, exist_ok=True)
    write_json(file, faults)
    return faults
