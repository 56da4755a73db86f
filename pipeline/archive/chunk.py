"""One chunk of a plan: judged in a folder of its own, trusted later if nothing has changed.

``chunks/000017/`` in the output folder is locked while a process judges chunk 17. The unfinished
run is in ``unfinished/`` there; a finished one is renamed to ``results/`` and contains
``done.json``: the digests of its files, and size and time of modification of every input file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from ..atomic import sync_folder
from ..config import RunConfig
from ..errors import UsageError
from ..folder_run import FolderRun
from ..io.own_output import OVERLAYS, TABLE
from ..lock import exclusive
from ..outcome import OperatingPoint, Outcome
from ..outcome_json import point_to_json
from ..progress import Progress
from ..report.json_lines import LINES
from ..report.outputs import OUTPUTS, Output, Resume
from ..report.record import path_text
from ..report.stream import naming_file, write_whole
from ..report.unfinished import About, about, differences_of, listed
from ..runtime.session import Weights
from .plan import Plan, PlannedFile, State, state_of
from .study_parts import NAME as STUDIES
from .study_parts import StudyPartsWriter

log = logging.getLogger(__name__)

DONE = "done.json"
FILES = (TABLE, LINES, STUDIES)
"""The files of a finished chunk that are merged."""
_SCHEMA = 1

_OUTPUTS: tuple[Output, ...] = (
    *(one for one in OUTPUTS if one.name in (TABLE, LINES, OVERLAYS)),
    Output(STUDIES, Resume.RECOUNT, lambda: StudyPartsWriter),
)


def chunk_outputs(config: RunConfig) -> list[Output]:
    """The outputs of a chunk.

    Raises:
        UsageError: The settings ask for an output that cannot be merged.
    """
    possible = {one.name for one in _OUTPUTS} | {"studies.csv"}
    for output in OUTPUTS:
        if output.requested(config) and output.name not in possible:
            hint = "give --parquet to `fxpipe merge`" if output.setting == "parquet" else ""
            raise UsageError(f"{output.option} is not possible with --plan", hint)
    return [one for one in _OUTPUTS if one.requested(config)]


class ChunkTakenError(UsageError):
    """Another process judges this chunk at present."""


@dataclass(frozen=True, slots=True)
class Done:
    """The record of a finished chunk.

    Attributes:
        about: What the rows depend on, from :func:`chunk_about`.
        states: Size and time of each input file, before it was read.
        digests: SHA-256 of each of :data:`FILES`.
        overlays: Names of the files in ``heatmaps/``.
        answers: Number of rows by verdict, or by status without one.
        points: Name, threshold and lower limit of the operating points for whole studies.
        types: Whether the weights predict types of fracture.
        schema: Version of this record.
    """

    about: About
    states: list[State]
    digests: dict[str, str]
    overlays: list[str]
    answers: dict[str, int]
    points: dict[str, list[str | float]]
    types: bool
    schema: int = _SCHEMA

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The record of a finished chunk; None without one that this version can read."""
        try:
            values = json.loads((folder / DONE).read_bytes())
            if values["schema"] != _SCHEMA:
                return None
            states = [
                None if one is None else (int(one[0]), int(one[1])) for one in values["states"]
            ]
            return cls(**{**values, "states": states})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def study_points(self) -> dict[str, OperatingPoint]:
        """Operating points for whole studies, by specialist."""
        return {name: OperatingPoint(*values) for name, values in self.points.items()}  # type: ignore[arg-type]


@dataclass(slots=True)
class AnswerCounts:
    """Counts rows by verdict, or by status without one."""

    answers: Counter[str] = field(default_factory=Counter)

    def write(self, outcome: Outcome) -> None:
        """Count one row."""
        leading = outcome.leading
        self.answers[leading.verdict.value if leading else outcome.status.value] += 1


def chunk_about(plan: Plan, weights: Weights, config: RunConfig) -> About:
    """What the rows of all chunks depend on; see :func:`pipeline.report.unfinished.about`."""
    return about({"plan": plan.digest}, weights, config)


def results_of(output: Path, number: int) -> Path:
    """The folder of a finished chunk."""
    return _folder(output, number) / "results"


def judge_chunk(
    plan: Plan, number: int, output: Path, work: FolderRun, about: About, progress: Progress,
    *, restart: bool = False, verify: bool = False,
) -> Counter[str] | None:  # fmt: skip
    """Judge a chunk, unless it is finished and can be trusted.

    Args:
        plan: The plan.
        number: The chunk.
        output: Output folder of all chunks.
        work: Judges files; its outputs are those of :func:`chunk_outputs`.
        about: From :func:`chunk_about`.
        progress: Advanced once for each file.
        restart: Whether a finished or unfinished chunk is judged again in any case.
        verify: Whether a finished chunk is trusted only after all its files were read.

    Returns:
        Numbers of the new rows by answer; None if the chunk is trusted.

    Raises:
        ChunkTakenError: Another process judges it.
        UsageError: It was judged with another configuration, or the folder cannot be written.
        OutputError: An output cannot be written.
    """
    folder, results = _folder(output, number), results_of(output, number)
    files = plan.chunk(number)
    with ExitStack() as stack:
        with naming_file(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(exclusive(folder))
            except UsageError as error:
                raise ChunkTakenError(str(error), error.hint) from error
        done = None if restart else Done.read(results)
        if done is not None:
            _check_same(results, done, about)
            fault = fault_of(done, results, files, plan.root, verify=verify)
            if not fault:
                for _ in files:
                    progress.advance()
                return None
            log.warning("chunk %d is judged again: %s", number, fault)
        states = [state_of(one.path) for one in files]
        _warn_of_changes(number, files, states, plan.root)
        unfinished, counts = folder / "unfinished", AnswerCounts()
        work.judge(
            iter([one.path for one in files]), unfinished, about, counts, progress,
            restart=restart,
        )  # fmt: skip
        _finish(unfinished, about, states, counts, work.networks)
        with naming_file(results):
            if results.exists():
                shutil.rmtree(results)
            unfinished.rename(results)
            sync_folder(folder)
    return counts.answers


def fault_of(
    done: Done, results: Path, files: Sequence[PlannedFile], root: Path, *, verify: bool
) -> str:
    """Why a finished chunk cannot be trusted; empty if it can.

    Args:
        done: Its record.
        results: Its folder.
        files: Its files.
        root: See :func:`pipeline.report.record.to_record`.
        verify: Whether to read the input files too, and compare them with the digests in the rows.
    """
    for one, state in zip(files, done.states, strict=True):
        if state_of(one.path) != state:
            return f"{path_text(one.path, root)} has changed"
    for name, digest in done.digests.items():
        if digest_of(results / name) != digest:
            return f"{name} has changed"
    for name in done.overlays:
        if not (results / OVERLAYS / name).is_file():
            return f"{OVERLAYS}/{name} is missing"
    return _changed_content(results, files, root) if verify else ""


def _changed_content(results: Path, files: Sequence[PlannedFile], root: Path) -> str:
    """The first file whose content differs from the row; empty if none does."""
    digests: dict[str, str | None] = {}
    with (results / LINES).open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            digests[row["path"]] = row["sha256"]
    for one in files:
        name = path_text(one.path, root)
        if digests.get(name) is not None and digest_of(one.path) != digests[name]:
            return f"{name} has other content"
    return ""


def digest_of(path: Path) -> str | None:
    """SHA-256 of a file; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _check_same(results: Path, done: Done, about: About) -> None:
    differences = differences_of(done.about, about)
    if differences:
        raise UsageError(
            f"{results}: judged with another configuration; all chunks must have the same\n"
            + listed(differences),
            "give the same options as before, judge these chunks again with --restart, or name "
            "another --output",
        )


def _warn_of_changes(
    number: int, files: Sequence[PlannedFile], states: Sequence[State], root: Path
) -> None:
    changed = [one for one, state in zip(files, states, strict=True) if one.state != state]
    if changed:
        noun = "file has" if len(changed) == 1 else "files have"
        log.warning(
            "chunk %d: %d %s changed since the plan was made, such as %s; judged as found now",
            number, len(changed), noun, path_text(changed[0].path, root),
        )  # fmt: skip


def _finish(
    folder: Path, about: About, states: list[State], counts: AnswerCounts, networks: Weights
) -> None:
    """Write the record of a finished chunk."""
    overlays = folder / OVERLAYS
    done = Done(
        about, states, {name: digest_of(folder / name) or "" for name in FILES},
        sorted(path.name for path in overlays.iterdir()) if overlays.is_dir() else [],
        dict(counts.answers),
        {name: point_to_json(point) for name, point in networks.study_points.items()},
        networks.has_types,
    )  # fmt: skip
    write_whole(folder / DONE, json.dumps(asdict(done), allow_nan=False).encode("ascii"))


def _folder(output: Path, number: int) -> Path:
    return output / "chunks" / f"{number:06d}"
