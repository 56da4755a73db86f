"""Whether a run begins, goes on, or is refused; and what is said about it."""

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
_HOW_FAST = {"batch_size", "workers", "megapixels", "intra_op_threads"}
"""Settings that change no result, beside the device and precision, which are told as resolved."""

About = dict[str, Any]


class Stopped(KeyboardInterrupt):
    """The process was asked to end, by SIGTERM."""

    exit_code = 143


def about(inputs: Inputs, weights: Weights, config: RunConfig) -> About:
    """Everything that results depend on beside the files, by name, in JSON values."""
    settings = config.model_dump(mode="json") | {
        "device": weights.device,
        "precision": weights.precision.value,
        "heatmaps": config.shown_heatmaps,
        "dicom_out": None if config.dicom_out is None else str(config.dicom_out.resolve()),
    }
    sources = ", ".join(str(path.resolve()) for path in inputs.paths)
    rows = f"rows {RECORD_SCHEMA} of {', '.join(REGIONS)}"
    told = {"input": sources, "fxpipe": f"{version()} ({rows})"}
    told |= {name: value for name, value in settings.items() if name not in _HOW_FAST}
    if config.studies not in STUDIES:
        told["studies"] = hashlib.sha256(Path(config.studies).read_bytes()).hexdigest()
    bundles = {part.bundle: part.digest for part in weights.networks}
    return {**told, **{f"bundle {name}": digest for name, digest in sorted(bundles.items())}}


def plan(output: Path, now: About, restart: bool) -> tuple[Kept, bool]:
    """Begin a journal, or find the one to go on with.

    Args:
        output: The output folder, held by this process.
        now: What is asked for.
        restart: Whether an unfinished run is forgotten.

    Returns:
        What is kept so far (nothing but the journal's first line), and whether there is more to
        be looked at.

    Raises:
        UsageError: There is an unfinished run of something else.
    """
    lines = [] if restart else list(islice(read(output), 2))
    if not (lines or restart) and (output / NAME).exists():
        raise UsageError(
            f"{output / NAME}: found the journal of an unfinished run that cannot be read",
            "begin anew with --restart, or name another --output",
        )
    if len(lines) < 2:  # without a file that is done there is nothing to lose
        return Kept(begin(output, {"schema": _JOURNAL_SCHEMA, "run": now})), False
    content, mark = lines[0]
    _check_same(output, content, now)
    return Kept(mark), True


def _check_same(output: Path, content: Mapping[str, Any], now: About) -> None:
    if content.get("schema") != _JOURNAL_SCHEMA:
        faults = [f"journal: was schema {content.get('schema')}, now {_JOURNAL_SCHEMA}"]
    else:
        was = content["run"]
        names = dict.fromkeys([*now, *was])
        faults = [
            f"{name}: was {_shown(name, was)}, now {_shown(name, now)}"
            for name in names
            if was.get(name, ...) != now.get(name, ...)
        ]
    if faults:
        raise UsageError(
            f"{output}: found an unfinished run of another configuration, wanted the same\n"
            + "\n".join(f"  - {fault}" for fault in faults),
            "give that command again to go on with it, begin anew with --restart, or name another "
            "--output",
        )


def _shown(name: str, values: About) -> str:
    """A value as it is told of a difference; of a digest its beginning."""
    if name not in values:
        return "not there"
    value = values[name]
    text = "unset" if value is None else str(value)
    is_digest = name.startswith("bundle ") or (name == "studies" and value not in STUDIES)
    return text[:12] if is_digest else text


def told(output: Path, kept: Kept) -> str:
    """What is said of a run that goes on."""
    files = kept.journal.rows
    line = f"going on with the unfinished run in {output}: {files} {_noun(files)} done"
    return f"{line}; everything after is done again ({kept.broken})" if kept.broken else line


def stopped(files: int) -> str:
    """What is said when a run is stopped."""
    return f"stopped after {files} {_noun(files)}; the same command goes on from there"


def _noun(files: int) -> str:
    return "file" if files == 1 else "files"


@contextmanager
def stoppable() -> Iterator[None]:
    """While the block runs, SIGTERM ends it as Ctrl-C does."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Stopped

    # Handlers belong to the main thread; Windows kills without asking.
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
