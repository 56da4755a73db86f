"""``fxpipe run --plan``: judges chunks of a plan, each in a folder of its own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..archive.chunk import ChunkTakenError, chunk_about, judge_chunk
from ..archive.merge import ranges
from ..archive.plan import Plan
from ..errors import UsageError
from ..folder_run import FolderRun
from ..outcome import SEVERITY
from ..progress import Progress

if TYPE_CHECKING:
    from ..archive.ray_engine import RayJob


def chunk_ranges(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> list[range] | None:
    """Callback of an option for chunks: ``17``, ``17-40`` or ``3,7-9``.

    Raises:
        BadParameter: It is written in another way.
    """
    if value is None:
        return None
    found = []
    for part in value.split(","):
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part.strip())
        if match is None:
            raise click.BadParameter(f"found {value!r}, expected 17, 17-40 or 3,7-9", ctx, param)
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise click.BadParameter(f"found {part!r}, expected the lower number first", ctx, param)
        found.append(range(first, last + 1))
    return found


def shard_of(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """Callback of an option for one of several processes: ``2/7``.

    Returns:
        Number of the process from 1, and number of processes.

    Raises:
        BadParameter: It is written in another way.
    """
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", value.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise click.BadParameter(
            f"found {value!r}, expected i/n with i from 1 to n, such as 2/7", ctx, param
        )
    return int(match[1]), int(match[2])


def chosen_chunks(
    plan: Plan, chunks: list[range] | None, shard: tuple[int, int] | None
) -> list[int]:
    """The chunks that a process judges, in rising order; all without a choice.

    Raises:
        UsageError: Both kinds of choice are given, or a chunk is not in the plan.
    """
    if chunks is None:
        return list(range(plan.chunks) if shard is None else plan.shard(*shard))
    if shard is not None:
        raise UsageError("found --chunks and --shard, expected one of them")
    numbers = sorted({number for part in chunks for number in part})
    if numbers[-1] >= plan.chunks:
        raise UsageError(
            f"--chunks: found chunk {numbers[-1]}, expected 0 to {plan.chunks - 1}, the chunks of "
            f"{plan.file}"
        )
    return numbers


@dataclass(slots=True)
class Chunks:
    """What a process or a cluster has done.

    Attributes:
        answers: Numbers of new rows by answer.
        judged: Number of chunks that were judged.
        trusted: Number of finished chunks that were trusted.
        taken: Chunks that other processes judge.
        failed: Why chunks could not be judged, by number.
    """

    answers: Counter[str] = field(default_factory=Counter)
    judged: int = 0
    trusted: int = 0
    taken: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)

    def add(self, answers: Counter[str] | None) -> None:
        """Count one chunk; without answers it was trusted."""
        self.judged += answers is not None
        self.trusted += answers is None
        self.answers += answers or Counter()

    def lines(self, plan: Plan, output: Path) -> Iterable[str]:
        """Lines for the terminal."""
        yield f"chunks: {self.judged} judged, {self.trusted} finished before"
        if self.taken:
            yield f"left to other processes: {ranges(sorted(self.taken))}"
        for number, error in sorted(self.failed.items()):
            yield f"chunk {number} failed: {error}"
        counts = [f"{n} {one.value}" for one in SEVERITY if (n := self.answers[one.value])]
        if counts:
            yield f"{self.answers.total()} new rows: {', '.join(counts)}"
        yield f"when all chunks are finished: fxpipe merge --plan {plan.file} --output {output}"


def judge_here(
    plan: Plan, numbers: Iterable[int], output: Path, work: FolderRun, progress: Progress, *,
    restart: bool, verify: bool,
) -> Chunks:  # fmt: skip
    """Judge chunks one after the other; those that other processes judge are left to them."""
    about = chunk_about(plan, work.networks, work.config)
    done = Chunks()
    for number in numbers:
        try:
            answers = judge_chunk(
                plan, number, output, work, about, progress, restart=restart, verify=verify
            )
        except ChunkTakenError:
            done.taken.append(number)
        else:
            done.add(answers)
    return done


def judge_on_cluster(
    engine: str, job: RayJob, plan: Plan, numbers: Sequence[int], progress: Progress
) -> Chunks:
    """Judge chunks on a Ray cluster.

    Args:
        engine: ``ray``, or ``ray://HOST:PORT``.
        job: What to judge.
        plan: The plan.
        numbers: The chunks.
        progress: Advanced once for each file.
    """
    from ..archive.ray_engine import connect, judge_on_ray

    connect(engine.partition("://")[2] or None)
    done = Chunks()
    for one in judge_on_ray(job, numbers):
        if one.error:
            done.failed[one.number] = one.error
        elif one.taken:
            done.taken.append(one.number)
        else:
            done.add(one.answers)
        for _ in range(plan.files_of([one.number])):
            progress.advance()
    return done
