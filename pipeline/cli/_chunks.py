"""``fxpipe run --plan``: judges chunks of a plan, each in a folder of its own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import click

from ..archive.chunk import CHUNK_OUTPUTS, ChunkTakenError, chunk_about, judge_chunk
from ..archive.merge import ranges
from ..archive.plan import Plan
from ..config import RunConfig
from ..errors import UsageError
from ..folder_run import FolderRun
from ..outcome import SEVERITY
from ..progress import Progress
from ..report.outputs import OUTPUTS


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


def check_outputs(config: RunConfig) -> None:
    """Check that all outputs can be merged.

    Raises:
        UsageError: One of them cannot.
    """
    possible = {one.name for one in CHUNK_OUTPUTS} | {"studies.csv"}
    for output in OUTPUTS:
        if output.requested(config) and output.name not in possible:
            other = "give --parquet to `fxpipe merge`" if output.setting == "parquet" else ""
            raise UsageError(f"{output.option} is not possible with --plan", other)


@dataclass(slots=True)
class Chunks:
    """What a process has done.

    Attributes:
        answers: Numbers of new rows by answer.
        judged: Number of chunks that were judged.
        trusted: Number of finished chunks that were trusted.
        taken: Chunks that other processes judge.
    """

    answers: Counter[str]
    judged: int = 0
    trusted: int = 0
    taken: tuple[int, ...] = ()

    def lines(self, plan: Plan, output: Path) -> Iterable[str]:
        """Lines for the terminal."""
        yield f"chunks: {self.judged} judged, {self.trusted} finished before"
        if self.taken:
            yield f"left to other processes: {ranges(self.taken)}"
        counts = [f"{n} {one.value}" for one in SEVERITY if (n := self.answers[one.value])]
        if counts:
            yield f"{self.answers.total()} new rows: {', '.join(counts)}"
        yield f"when all chunks are finished: fxpipe merge --plan {plan.file} --output {output}"


def judge_chunks(
    plan: Plan, numbers: Iterable[int], output: Path, work: FolderRun, progress: Progress, *,
    restart: bool, verify: bool,
) -> Chunks:  # fmt: skip
    """Judge chunks one after the other; those that other processes judge are left to them."""
    about = chunk_about(plan, work.networks, work.config)
    outputs = [one for one in CHUNK_OUTPUTS if one.requested(work.config)]
    work, done = replace(work, outputs=outputs), Chunks(Counter())
    for number in numbers:
        try:
            answers = judge_chunk(
                plan, number, output, work, about, progress, restart=restart, verify=verify
            )
        except ChunkTakenError:
            done.taken += (number,)
            continue
        if answers is None:
            done.trusted += 1
        else:
            done.judged += 1
            done.answers += answers
    return done
