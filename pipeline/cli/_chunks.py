"""``fxpipe run --plan``: judges chunks of a plan, each in a folder of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..archive.chunk import ChunkTakenError, chunk_about, chunk_outputs, judge_chunk
from ..archive.merge import ranges
from ..archive.plan import Plan
from ..config import RunConfig
from ..errors import OutputError, UsageError
from ..folder_run import FolderRun
from ..outcome import SEVERITY
from ..progress import Progress, on_stderr
from ..reading.open_reader import open_reader
from ..studies import studies_by
from ._extras import needs
from ._networks import open_networks
from ._resume import stoppable
from ._weights_folder import default_weights

if TYPE_CHECKING:
    from ..archive.ray_engine import RayJob


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
class ChunkCounts:
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
) -> ChunkCounts:  # fmt: skip
    """Judge chunks one after the other; those that other processes judge are left to them."""
    about = chunk_about(plan, work.networks, work.config)
    done = ChunkCounts()
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
) -> ChunkCounts:
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
    done = ChunkCounts()
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


def run_chunks(
    ctx: click.Context, plan: Plan, numbers: Sequence[int], output: Path, weights: Path | None,
    config: RunConfig, engine: str, resume: bool, verify: bool, quiet: bool,
) -> None:  # fmt: skip
    """Judge chunks of a plan, print what was done, and end the command."""
    outputs = chunk_outputs(config)
    folder = weights or default_weights()
    if engine == "local":
        reader = ctx.with_resource(open_reader(config))
        networks = open_networks(folder, config, quiet)
        studies = studies_by(config.studies, plan.root)
        work = FolderRun(networks, config, plan.root, studies, outputs, reader)
        judge = partial(judge_here, plan, numbers, output, work, restart=not resume, verify=verify)
    else:
        open_networks(folder, config, quiet)  # errors of the weights are reported before the start
        with needs("cluster"):
            from ..archive.ray_engine import RayJob
        job = RayJob(
            plan.file.resolve(), plan.root.resolve(), output.resolve(), folder.resolve(), config,
            not resume, verify,
        )  # fmt: skip
        judge = partial(judge_on_cluster, engine, job, plan, numbers)
    with on_stderr(plan.files_of(numbers), quiet) as progress, stoppable(ctx):
        done = judge(progress)
    for line in done.lines(plan, output) if not quiet else ():
        click.echo(line)
    if done.failed:
        raise OutputError(
            f"{len(done.failed)} of {len(numbers)} chunks failed",
            "the same command judges them again",
        )
    ctx.exit(1 if done.answers["failed"] else 0)
