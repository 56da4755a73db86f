"""Decides whether a run starts, resumes or is refused, and builds the messages about it."""

from __future__ import annotations

import hashlib
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

from .. import version
from ..config import STUDIES, RunConfig
from ..domain import REGIONS
from ..errors import UsageError
from ..report.columns import RECORD_SCHEMA
from ..report.journal import NAME, begin, read
from ..report.resume import Kept
from ..runtime.session import Weights
from ._inputs import Inputs

_JOURNAL_SCHEMA = 2
_SPEED_ONLY = {"batch_size", "workers", "megapixels", "intra_op_threads"}
"""Settings that do not change results. Device and precision do: their resolved values count."""

About = dict[str, Any]


class Stopped(KeyboardInterrupt):
    """The process received SIGTERM."""

    exit_code = 143


def about(inputs: Inputs, weights: Weights, config: RunConfig) -> About:
    """Everything that results depend on except the files, by name, as JSON values."""
    settings = config.model_dump(mode="json") | {
        "device": weights.device,
        "precision": weights.precision.value,
        "heatmaps": config.shown_heatmaps,
        "dicom_out": None if config.dicom_out is None else str(config.dicom_out.resolve()),
    }
    sources = ", ".join(str(path.resolve()) for path in inputs.paths)
    rows = f"rows {RECORD_SCHEMA} of {', '.join(REGIONS)}"
    facts = {"input": sources, "fxpipe": f"{version()} ({rows})"}
    facts |= {name: value for name, value in settings.items() if name not in _SPEED_ONLY}
    if config.studies not in STUDIES:
        facts["studies"] = hashlib.sha256(Path(config.studies).read_bytes()).hexdigest()
    bundles = {part.bundle: part.digest for part in weights.networks}
    return {**facts, **{f"bundle {name}": digest for name, digest in sorted(bundles.items())}}


def plan(output: Path, now: About, restart: bool) -> tuple[Kept, bool]:
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
        was = content["run"]
        names = dict.fromkeys([*now, *was])
        differences = [
            f"{name}: was {_value_text(name, was)}, now {_value_text(name, now)}"
            for name in names
            if was.get(name, ...) != now.get(name, ...)
        ]
    if differences:
        raise UsageError(
            f"{output}: it contains an unfinished run of another configuration; to resume, the "
            "configuration must be the same\n"
            + "\n".join(f"  - {difference}" for difference in differences),
            "give the earlier command again to resume that run, start over with --restart, or "
            "name another --output",
        )


def _value_text(name: str, values: About) -> str:
    """A value as text; for a digest, its first 12 digits."""
    if name not in values:
        return "missing"
    value = values[name]
    text = "unset" if value is None else str(value)
    is_digest = name.startswith("bundle ") or (name == "studies" and value not in STUDIES)
    return text[:12] if is_digest else text


def resume_message(output: Path, kept: Kept) -> str:
    """The message for a run that resumes."""
    files = kept.journal.rows
    line = f"resuming the unfinished run in {output}: {files} {_noun(files)} done"
    return f"{line}; all later files are done again ({kept.broken})" if kept.broken else line


def stop_message(files: int) -> str:
    """The message for a run that is stopped."""
    return f"stopped after {files} {_noun(files)}; the same command resumes from there"


def _noun(files: int) -> str:
    return "file" if files == 1 else "files"


@contextmanager
def stoppable() -> Iterator[None]:
    """While the block runs, SIGTERM ends it like Ctrl-C."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Stopped

    # Only the main thread may set handlers; Windows kills a process without a signal.
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
