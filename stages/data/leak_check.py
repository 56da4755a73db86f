"""Refusal to train on a table that leaks, unless explicitly allowed."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from pipeline.bundle import write_json
from pipeline.errors import IndexFaultsError
from pipeline.progress import Progress

from ..samples import Index
from .audit import TWINS, Kind, audit

log = logging.getLogger(__name__)

Fault = tuple[str, str, str]
"""Kind (:class:`stages.data.audit.Kind`) and the paths of the two rows (or one path twice)."""


def refuse_leaks(tables: Sequence[Index], cache: Path, allowed: bool, progress: Progress) -> None:
    """Audit the pictures once, and compare the findings with the splits of each table.

    Args:
        tables: Tables of the same pictures, such as the folds of a cross-validation.
        cache: Folder for the findings, so that stages trained on the same files share one audit.
        allowed: Only log a warning.
        progress: Advanced once per picture.

    Raises:
        IndexFaultsError: A picture, or nearly the same one, is in two splits, or has two labels,
            or cannot be read.
    """
    faults = _cached_faults(tables[0], cache, progress)
    messages: list[str] = []
    for table in tables:
        splits = {str(sample.path): sample.split for sample in table.samples}
        for kind, first, second in faults:
            pair = {splits.get(first, "excluded"), splits.get(second, "excluded")}
            if "excluded" in pair or (kind in TWINS and len(pair) == 1):
                continue
            message = f"{first}: {kind}" + ("" if first == second else f" as {second}")
            messages.append(f"{message} ({' and '.join(sorted(pair))})")
    messages = list(dict.fromkeys(messages))
    if not messages:
        return
    source = str(tables[0].source)
    if allowed:
        log.warning(
            "%s: %d leak(s) or contradictions, allowed: %s", source, len(messages), messages[0]
        )
        return
    error = IndexFaultsError(source, messages)
    error.hint = (
        "inspect them with `fxpipe audit`, and group twins with `fxpipe index … "
        "--groups-from audit/pairs.csv`; --allow-leaks trains nevertheless"
    )
    raise error


def _cached_faults(table: Index, cache: Path, progress: Progress) -> list[Fault]:
    """Faults of these files from the cache, or from a new audit."""
    key = "".join(f"{s.path} {s.sha256} {s.label} {s.split}\n" for s in table.samples)
    file = cache / f"audit-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    if file.is_file():
        return [
            (kind, first, second) for kind, first, second in json.loads(file.read_text("utf-8"))
        ]
    log.info("%s: searching %d pictures for leaks", table.source, len(table.samples))
    kinds = (*TWINS, Kind.LABELS, Kind.UNREADABLE)
    faults = [
        (str(finding.kind), str(finding.samples[0].path), str(finding.samples[-1].path))
        for finding in audit(table, progress).findings
        if finding.kind in kinds
    ]
    cache.mkdir(parents=True, exist_ok=True)
    write_json(file, faults)
    return faults
