"""fxpipe as a contender: the whole job by parts, and the networks alone."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from ..config import RunConfig
from ..domain import Array
from ..engine import run
from ..io import decode, read_file
from ..outcome import Outcome
from ..preprocess import PreprocessSpec, preprocess
from ..reading.open_reader import open_reader
from ..report.csv_table import CsvWriter
from ..report.json_lines import JsonLinesWriter
from ..runtime.network import Batch, Router, Specialist, Trunk
from ..runtime.session import Weights, load_bundles
from ..timing import Clock
from .rounds import JobResult

_IN_NETWORKS = ("trunk", "heads")
_MOST_IN_MEMORY = 256
"""Largest number of preprocessed pictures kept in memory to measure the networks alone."""


class FxpipeContender:
    """``fxpipe run`` without terminal output.

    Args:
        weights: Folder with a manifest.
        config: Settings with an explicit device and precision.
        root: Folder of the files.

    Raises:
        BundleError: See :func:`pipeline.runtime.session.load_bundles`.
        DeviceError: See :func:`pipeline.runtime.session.load_bundles`.
        StartError: No worker process can be started.
    """

    def __init__(self, weights: Path, config: RunConfig, root: Path) -> None:
        self._config = config
        self._root = root
        self._weights = load_bundles(weights, config)
        # Started once, like the networks: the startup of a contender is not measured.
        stack = ExitStack()
        self._reader = stack.enter_context(open_reader(config))
        weakref.finalize(self, stack.close)
        self._turns: list[_Turn] = []

    @property
    def facts(self) -> Mapping[str, Any]:
        """See :class:`~.rounds.Contender`."""
        config = self._config
        return {
            "device": self._weights.device,
            "precision": self._weights.precision.value,
            "input_px": [[s.height_px, s.width_px] for s in self._weights.preprocessings],
            "batch_size": config.batch_size,
            "lanes": config.lanes,
            "threads": config.threads,
            "reader_threads": config.reader_threads,
            "isolate": config.isolate,
        }

    def do(self, paths: Sequence[Path], output: Path) -> JobResult:
        """See :class:`~.rounds.Contender`."""
        # On a CPU, a thread that waits for a core does no work. With a GPU, waiting is its work.
        clock = Clock(time.thread_time if self._weights.device == "cpu" else time.perf_counter)
        pictures = looks = 0
        with (
            CsvWriter(output / "results.csv", self._root) as table,
            JsonLinesWriter(output / "results.jsonl", self._root) as lines,
            ExitStack() as stack,
        ):
            outcomes = run(paths, self._weights, self._config, clock=clock, reader=self._reader)
            stack.enter_context(closing(outcomes))
            for outcome in outcomes:
                with clock.measure("writing"):
                    table.write(outcome)
                    lines.write(outcome)
                pictures += 1
                looks += len(outcome.findings)
        # The clock measures the thread that calls a network. On the CPU, the other threads of the
        # network, which all lanes share, work at the same time.
        config = self._config
        shared = (config.threads - 1) / config.lanes if self._weights.device == "cpu" else 0.0
        parts = {
            name: seconds * (1.0 + shared if name in _IN_NETWORKS else 1.0)
            for name, seconds in clock.seconds.items()
        }
        return JobResult(pictures, looks, parts)

    def session(self, paths: Sequence[Path]) -> float:
        """See :class:`~.rounds.Contender`: batches in memory, with the lanes of a run.

        Runs at least as many pictures as ``paths``, and the same number of batches in each lane,
        so that no lane waits for another at the end.
        """
        size, lanes = self._config.batch_size, self._config.lanes
        if not self._turns:
            self._turns = _prepare(paths, self._weights, self._config)
        count = -(-len(paths) // (size * lanes)) * lanes
        turns = islice(cycle(self._turns), count)
        lock = threading.Lock()

        def take() -> _Turn | None:
            with lock:
                return next(turns, None)

        def lane() -> None:
            while (turn := take()) is not None:
                turn.run_networks()

        started = time.perf_counter()
        with ThreadPoolExecutor(lanes) as pool:
            for work in [pool.submit(lane) for _ in range(lanes)]:
                work.result()
        return count * size / (time.perf_counter() - started)


class _Stacked(Batch):
    """A batch whose preprocessed arrays are already in memory.

    Args:
        arrays: (N, 1, H, W) float32 by preprocessing.
        trunks: Trunks by the identity of their weights.
    """

    def __init__(self, arrays: Mapping[PreprocessSpec, Array], trunks: Mapping[str, Trunk]) -> None:
        super().__init__((), trunks)
        self._in_memory = arrays

    def _stacked(self, spec: PreprocessSpec) -> Array:
        return self._in_memory[spec]


@dataclass(frozen=True, slots=True)
class _Turn:
    """Pictures in memory, and the rows that each stage judges.

    Attributes:
        arrays, trunks: See :class:`_Stacked`.
        looks: Stages with their rows.
    """

    arrays: Mapping[PreprocessSpec, Array]
    trunks: Mapping[str, Trunk]
    looks: Sequence[tuple[Router | Specialist, Sequence[int]]]

    def run_networks(self) -> None:
        """Run every network and discard the outputs."""
        batch = _Stacked(self.arrays, self.trunks)
        for stage, rows in self.looks:
            stage.look(batch, rows)


def _prepare(paths: Sequence[Path], weights: Weights, config: RunConfig) -> list[_Turn]:
    """Full batches of the pictures of some files, without repeats, routed as in a run."""
    files = list(dict.fromkeys(paths))[:_MOST_IN_MEMORY]
    outcomes = list(run(files, weights, config))[:_MOST_IN_MEMORY]
    pictures = list(islice(_preprocessed(files, weights.preprocessings), _MOST_IN_MEMORY))
    count = -(-len(pictures) // config.batch_size)
    source = cycle(zip(pictures, outcomes, strict=True))
    turns = []
    for _ in range(count):
        batch = list(islice(source, config.batch_size))
        arrays = {
            spec: np.stack([picture[spec] for picture, _ in batch])
            for spec in weights.preprocessings
        }
        looks = list(_looks([outcome for _, outcome in batch], weights))
        turns.append(_Turn(arrays, weights.trunks, looks))
    return turns


def _preprocessed(
    files: Sequence[Path], specs: Sequence[PreprocessSpec]
) -> Iterator[dict[PreprocessSpec, Array]]:
    for path in files:
        content, sha256 = read_file(path)
        for image in decode(content, path, sha256):
            yield {spec: preprocess(image.pixels, spec)[0] for spec in specs}


def _looks(
    outcomes: Sequence[Outcome], weights: Weights
) -> Iterator[tuple[Router | Specialist, Sequence[int]]]:
    """Every stage that judged pictures, with their rows."""
    if weights.region is not None:
        yield weights.region, range(len(outcomes))
    for region, stage in weights.fracture.items():
        judged = [region in {f.region for f in outcome.findings} for outcome in outcomes]
        if rows := [row for row, used in enumerate(judged) if used]:
            yield stage, rows
