"""Decides whether a run starts or resumes, and what must be equal for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from .. import version
from ..config import STUDIES, RunConfig
from ..domain import REGIONS
from ..errors import UsageError
from ..runtime.session import Weights
from .columns import RECORD_SCHEMA
from .journal import NAME, begin, read
from .resume import Kept

_JOURNAL_SCHEMA = 2
_SPEED_ONLY = {"batch_size", "cores", "workers", "megapixels", "intra_op_threads"}
"""Settings that do not change results. Device and precision do: their resolved values count."""

About = dict[str, Any]


def about(source: Mapping[str, str], weights: Weights, config: RunConfig) -> About:
    """Everything that results depend on except the files, by name, as JSON values.

    Args:
        source: Where the files come from, by name.
        weights: The networks of the run.
        config: Settings of the run.
    """
    settings = config.model_dump(mode="json") | {
        "device": weights.device,
        "precision": weights.precision.value,
        "heatmaps": config.shown_heatmaps,
        "dicom_out": None if config.dicom_out is None else str(config.dicom_out.resolve()),
    }
    rows = f"rows {RECORD_SCHEMA} of {', '.join(REGIONS)}"
    facts = {**source, "fxpipe": f"{version()} ({rows})"}
    facts |= {name: value for name, value in settings.items() if name not in _SPEED_ONLY}
    if config.studies not in STUDIES:
        facts["studies"] = hashlib.sha256(Path(config.studies).read_bytes()).hexdigest()
    bundles = {part.bundle: part.digest for part in weights.networks}
    return {**facts, **{f"bundle {name}": digest for name, digest in sorted(bundles.items())}}


def begin_or_resume(output: Path, now: About, restart: bool) -> tuple[Kept, bool]:
    """Start a journal, or find the one to resume.

    Args:
        output: The output folder, locked by this process.
        now: The requested run, from :func:`about`.
        restart: Whether an unfinished run is discarded.

    Returns:
        What is kept so far (only the journal's first line), and whether the journal has more lines
        to check.

    Raises:
        UsageError: The unfinished run has another configuration, or its journal is unreadable.
    """
    lines = [] if restart else list(islice(read(output), 2))
    if not (lines or restart) and (output / NAME).exists():
        raise UsageError(
            f"{output / NAME}: the journal of an unfinished run cannot be read",
            "start over with --restart, or name another --output",
        )
    if len(lines) < 2:  # no file is done, so nothing is lost
        return Kept(begin(output, {"schema": _JOURNAL_SCHEMA, "run": now})), False
    content, mark = lines[0]
    _check_same(output, content, now)
    return Kept(mark), True


def _check_same(output: Path, content: Mapping[str, Any], now: About) -> None:
    if content.get("schema") != _JOURNAL_SCHEMA:
        differences = [f"journal: was schema {content.get('schema')}, now {_JOURNAL_SCHEMA}"]
    else:
        differences = differences_of(content["run"], now)
    if differences:
        raise UsageError(
            f"{output}: it contains an unfinished run of another configuration; to resume, the "
            "configuration must be the same\n" + listed(differences),
            "give the earlier command again to resume that run, start over with --restart, or "
            "name another --output",
        )


def differences_of(was: About, now: About) -> list[str]:
    """Facts of :func:`about` that differ, one line each."""
    return [
        f"{name}: was {_value_text(name, was)}, now {_value_text(name, now)}"
        for name in dict.fromkeys([*now, *was])
        if was.get(name, ...) != now.get(name, ...)
    ]


def listed(lines: Iterable[str]) -> str:
    """Lines as an indented list."""
    return "\n".join(f"  - {line}" for line in lines)


def _value_text(name: str, values: About) -> str:
    """A value as text; for a digest, its first 12 digits."""
    if name not in values:
        return "missing"
    value = values[name]
    text = "unset" if value is None else str(value)
    is_digest = name.startswith("bundle ") or (name == "studies" and value not in STUDIES)
    return text[:12] if is_digest else text
