"""The merge: from the results of all chunks to those of a single run."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..atomic import replacing
from ..errors import InputMissingError, UsageError
from ..io.own_output import OVERLAYS, TABLE
from ..progress import Progress
from ..report.json_lines import LINES
from ..report.stream import naming_file
from ..report.unfinished import differences_of, listed
from .chunk import Done, fault_of, results_of
from .plan import Plan
from .study_parts import NAME as STUDIES
from .study_parts import write_studies

_PIECE_BYTES = 2**20
_MOST_RANGES = 10


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge has written.

    Attributes:
        answers: Number of rows by verdict, or by status without one.
        studies: Number of studies.
    """

    answers: Counter[str]
    studies: int


@dataclass(frozen=True, slots=True)
class Chunks:
    """The finished chunks of a plan, in order.

    Attributes:
        plan: The plan.
        results: Folder of each chunk.
        done: Record of each chunk, without the states of its files.
    """

    plan: Plan
    results: Sequence[Path]
    done: Sequence[Done]


def find_chunks(plan: Plan, folders: Sequence[Path]) -> Chunks:
    """Find every chunk of a plan in the output folders of its processes.

    Raises:
        InputMissingError: A chunk is not finished.
        UsageError: Two chunks were judged with different configurations or for another plan.
    """
    results, records, missing = [], [], []
    for number in range(plan.chunks):
        for folder in folders:
            place = results_of(folder, number)
            done = Done.read(place)
            if done is not None:
                results.append(place)
                records.append(replace(done, states=[]))  # of a million files: too much memory
                break
        else:
            missing.append(number)
    if missing:
        raise InputMissingError(
            f"{len(missing)} of {plan.chunks} chunks are not finished: {ranges(missing)}",
            f"fxpipe run --plan {plan.file} --chunks {ranges(missing).split(',')[0]}",
        )
    for place, done in zip(results, records, strict=True):
        expected = {**records[0].about, "plan": plan.digest}
        differences = differences_of(done.about, expected)
        if differences:
            raise UsageError(
                f"{place}: judged with another configuration than {results[0]}\n"
                + listed(differences),
                "judge these chunks again with --restart",
            )
    return Chunks(plan, results, records)


def verify(chunks: Chunks, progress: Progress) -> None:
    """Read all files again, and compare them with the records.

    Raises:
        UsageError: A file has changed since it was judged.
    """
    for number, place in enumerate(chunks.results):
        files, done = chunks.plan.chunk(number), Done.read(place)
        fault = "has changed"
        if done is not None:
            fault = fault_of(done, place, files, chunks.plan.root, verify=True)
        if fault:
            raise UsageError(
                f"chunk {number}: {fault}",
                f"fxpipe run --plan {chunks.plan.file} --chunks {number}",
            )
        progress.advance()


def merge(chunks: Chunks, output: Path, progress: Progress, *, parquet: bool = False) -> Merged:
    """Write the outputs of a single run from those of all chunks.

    Args:
        chunks: All chunks.
        output: Output folder; files of a finished run are replaced.
        progress: Advanced once for each chunk.
        parquet: Whether to write ``results.parquet`` too.

    Raises:
        UsageError: A result has changed since its chunk was finished.
        OutputError: An output cannot be written.
        MissingExtraError: Parquet needs an extra that is not installed.
    """
    first = chunks.done[0]
    _concatenate(chunks, LINES, output / LINES)
    _concatenate(chunks, TABLE, output / TABLE, header=True)
    for place, done in zip(chunks.results, chunks.done, strict=True):
        _link_overlays(place / OVERLAYS, done.overlays, output / OVERLAYS)
        progress.advance()
    studies = write_studies(
        output / "studies.csv", (place / STUDIES for place in chunks.results),
        first.study_points, chunks.plan.root, bom=bool(first.about.get("csv_bom")),
    )  # fmt: skip
    if parquet:
        from ..report.parquet import ParquetWriter

        with ParquetWriter(output / "results.parquet", output / LINES, types=first.types):
            pass
    answers: Counter[str] = Counter()
    for done in chunks.done:
        answers.update(done.answers)
    return Merged(answers, studies)


def _concatenate(chunks: Chunks, name: str, target: Path, *, header: bool = False) -> None:
    """Join a file of all chunks; only the first header is kept.

    Raises:
        UsageError: The content of a file has changed.
    """
    with naming_file(target), replacing(target) as partial, partial.open("wb") as joined:
        for number, (place, done) in enumerate(zip(chunks.results, chunks.done, strict=True)):
            digest = hashlib.sha256()
            with (place / name).open("rb") as file:
                if header:
                    line = file.readline()
                    digest.update(line)
                    if not number:
                        joined.write(line)
                while piece := file.read(_PIECE_BYTES):
                    digest.update(piece)
                    joined.write(piece)
            if digest.hexdigest() != done.digests[name]:
                raise UsageError(
                    f"{place / name}: has changed since the chunk was finished",
                    f"fxpipe run --plan {chunks.plan.file} --chunks {number}",
                )


def _link_overlays(source: Path, names: Sequence[str], target: Path) -> None:
    """Give the overlays of a chunk a name in the merged folder, or copy them to another disk."""
    if names:
        target.mkdir(exist_ok=True)
    for name in names:
        with suppress(FileNotFoundError):
            (target / name).unlink()
        try:
            os.link(source / name, target / name)
        except OSError:
            shutil.copyfile(source / name, target / name)


def ranges(numbers: Sequence[int]) -> str:
    """Rising numbers as ranges, as ``--chunks`` takes them: ``3,7-9``; at most ten of them."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    shown = [str(a) if a == b else f"{a}-{b}" for a, b in found[:_MOST_RANGES]]
    return ",".join(shown) + (",…" if len(found) > _MOST_RANGES else "")
