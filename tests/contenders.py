"""Benchmark contenders without networks, in an importable module for spawned processes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.bench.rounds import ContenderSpec, JobResult
from pipeline.errors import DeviceError


class Fake:
    """A contender that writes its name into a log for every job and can fail at one of them.

    Args:
        name: Name of the contender.
        log: Log file, shared by all contenders.
        fails_at: Number of the job that fails; the warm-up has number 0.
        how: ``leaves`` (the process exits with code 7), ``refuses`` (it raises ``DeviceError``), or
            ``forgets`` (it reports one row too few).
    """

    def __init__(self, name: str, log: Path, fails_at: int, how: str) -> None:
        self._name, self._log, self._fails_at, self._how = name, log, fails_at, how
        self._jobs = 0

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"jobs": self._jobs, "input_px": [[32, 32]]}

    def do(self, paths: Sequence[Path], output: Path) -> JobResult:
        assert output.is_dir()
        failing, self._jobs = self._jobs == self._fails_at, self._jobs + 1
        if failing and self._how == "leaves":
            os._exit(7)
        if failing and self._how == "refuses":
            raise DeviceError("no memory left", "buy some")
        with self._log.open("a") as file:
            file.write(f"{self._name} {len(paths)}\n")
        return JobResult(len(paths) - (failing and self._how == "forgets"), 1)

    def session(self, paths: Sequence[Path]) -> float:
        return 10.0


def make(name: str, log: Path, fails_at: int, how: str) -> Fake:
    if fails_at < 0 and how == "refuses":
        raise DeviceError("no such device")
    return Fake(name, log, fails_at, how)


def fake(name: str, log: Path, fails_at: int = 99, how: str = "") -> ContenderSpec:
    return ContenderSpec(name, "cpu", partial(make, name, log, fails_at, how))
