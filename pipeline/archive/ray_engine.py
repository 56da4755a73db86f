"""Chunks of a plan on a Ray cluster: Ray hands out their numbers, fxpipe writes them.

Ray Data restarts actors that are lost and repeats their chunks elsewhere. A chunk that was finished
before its node was lost is trusted, so it is not judged twice.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data

from .. import logging_setup
from ..config import RunConfig
from ..errors import FxpipeError, StartError
from ..folder_run import FolderRun
from ..progress import Silent
from ..reading.open_reader import open_reader
from ..runtime.session import load_bundles
from ..studies import studies_by
from .chunk import ChunkTakenError, chunk_about, chunk_outputs, judge_chunk
from .plan import open_plan

_TAKEN_S = 60.0
"""Seconds to wait for the lock of a chunk: the process of a lost node may still be ending."""
_CONNECT_S = 10.0
_GPU_DEVICES = {"cuda", "tensorrt"}


@dataclass(frozen=True, slots=True)
class RayJob:
    """What every actor gets; all paths are the same on all nodes.

    Attributes:
        plan: File of the plan.
        root: Folder of the planned files.
        output: Output folder of all chunks.
        weights: Weights folder.
        config: Settings of the run.
        restart: See :func:`.chunk.judge_chunk`.
        verify: See :func:`.chunk.judge_chunk`.
    """

    plan: Path
    root: Path
    output: Path
    weights: Path
    config: RunConfig
    restart: bool = False
    verify: bool = False


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """The end of one chunk.

    Attributes:
        number: The chunk.
        answers: Numbers of new rows by answer; None if the chunk was trusted or not judged.
        taken: Whether another process judges it.
        error: Why it was not judged; empty if it was.
    """

    number: int
    answers: Counter[str] | None = None
    taken: bool = False
    error: str = ""


def connect(address: str | None) -> None:
    """Join a cluster, unless this process has already done so.

    Args:
        address: ``HOST:PORT`` of the head node. None for the cluster of this machine or of
            ``RAY_ADDRESS``; without any, one is started on this machine for this run.

    Raises:
        StartError: There is no cluster at that address.
    """
    if ray.is_initialized():
        return
    try:
        if address is not None:
            host, _, port = address.rpartition(":")
            # Without an answer, Ray itself would try for minutes.
            socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
        ray.init(address, log_to_driver=True, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError, OverflowError, OSError) as error:
        raise StartError(
            f"ray://{address}: found no Ray cluster ({error})",
            "run this on a node of the cluster, with the address that `ray start --head` printed",
        ) from error


def judge_on_ray(job: RayJob, numbers: Sequence[int]) -> Iterator[ChunkResult]:
    """Judge chunks on all nodes of a cluster, one actor for each node of the smallest size.

    Args:
        job: What to judge.
        numbers: Chunks that are not finished.

    Yields:
        The end of each chunk, as soon as it has ended.

    Raises:
        StartError: No node has a processor.
    """
    cpus, gpus, actors = _shape(job.config)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    chunks = ray.data.from_items(
        [{"number": number} for number in numbers], override_num_blocks=len(numbers)
    )
    ended = chunks.map_batches(
        ChunkActor, batch_size=1, fn_constructor_args=(job, cpus),
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=actors, max_tasks_in_flight_per_actor=1
        ),
        num_cpus=cpus, num_gpus=gpus,
    )  # fmt: skip
    for row in ended.iter_rows():
        answers = dict(zip(row["names"], map(int, row["counts"]), strict=True))
        yield ChunkResult(
            int(row["number"]), Counter(answers) if row["judged"] else None, bool(row["taken"]),
            str(row["error"]),
        )  # fmt: skip


def _shape(config: RunConfig) -> tuple[int, int, int]:
    """Processors and GPUs of each actor, and the number of actors."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    cpus = [int(one["CPU"]) for one in nodes if one.get("CPU", 0) >= 1]
    if not cpus:
        raise StartError("the Ray cluster has no node with a processor")
    gpus = int(sum(one.get("GPU", 0) for one in nodes))
    each = min(cpus)
    if gpus and config.device in {"auto", *_GPU_DEVICES}:
        # One actor for each GPU; they share the processors of their node.
        each = max(1, sum(cpus) // gpus)
        return each, 1, gpus
    return each, 0, sum(one // each for one in cpus)


class ChunkActor:
    """Opens the networks once, and judges chunks until the run ends.

    Args:
        job: What to judge.
        cpus: Number of processor cores to use.
    """

    def __init__(self, job: RayJob, cpus: int) -> None:
        logging_setup.configure(logging.WARNING)
        self._job = job
        self._plan = open_plan(job.plan, job.root)
        config = job.config.model_copy(update={"cores": cpus})
        self._stack = ExitStack()
        networks = load_bundles(job.weights, config)
        self._work = FolderRun(
            networks, config, job.root, studies_by(config.studies, job.root),
            chunk_outputs(config), self._stack.enter_context(open_reader(config)),
        )  # fmt: skip
        self._about = chunk_about(self._plan, networks, config)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Judge one chunk.

        Args:
            batch: ``number``, an array of one.

        Returns:
            One row, as columns: see :class:`ChunkResult`.
        """
        number, answers, taken, error = int(batch["number"][0]), None, False, ""
        try:
            answers = self._judge(number)
        except ChunkTakenError:
            taken = True
        except FxpipeError as fault:
            error = str(fault)
        counts = answers or Counter()
        return {
            "number": [number], "judged": [answers is not None], "taken": [taken],
            "error": [error], "names": _column(list(counts)),
            "counts": _column(list(counts.values())),
        }  # fmt: skip

    def _judge(self, number: int) -> Counter[str] | None:
        deadline = time.monotonic() + _TAKEN_S
        while True:
            try:
                return judge_chunk(
                    self._plan, number, self._job.output, self._work, self._about, Silent(),
                    restart=self._job.restart, verify=self._job.verify,
                )  # fmt: skip
            except ChunkTakenError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1.0)


def _column(values: list[Any]) -> Any:
    """A column whose only row is a list."""
    column = np.empty(1, object)
    column[0] = values
    return column
