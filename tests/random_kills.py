"""Kills runs of fxpipe at random places, again and again, and lets each go on where it was.

Started as a program of its own, with one thread, so that it may fork: each child is a process with
a warm interpreter that calls the command as the console script does, and dies of a real SIGKILL:
either sent from outside after a random time, or to itself in the middle of a random write, of which
only a random part has gone out. What is left is what a started process would leave; only the
import of the packages is saved.

    python tests/random_kills.py KILLS SEED FOLDER MOST arguments of fxpipe run…

kills until there were KILLS kills, at most MOST for a run, and prints one line of JSON for each run
that got through: its output folder below FOLDER, kills and exit code. The first, ``whole``, nobody
killed. In the arguments ``@`` stands for the output folder.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime  # noqa: F401 - warm

from pipeline.cli import main
from pipeline.cli import run as command  # noqa: F401 - warm
from pipeline.report import fhir, html, parquet, stream  # noqa: F401 - warm
from pipeline.report.dicom import objects  # noqa: F401 - warm

_WRITES_A_ROW = 5
Doom = Callable[[], None]


def child(arguments: list[str], doom: Doom) -> int:
    """Start a run; returns its process."""
    pid = os.fork()
    if pid:
        return pid
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    doom()
    code = 70
    try:
        main(arguments)
    except SystemExit as leave:
        code = int(leave.code or 0)
    finally:
        os._exit(code)


def never() -> None:
    """Let it run."""


def in_a_write(number: int, share: float) -> Doom:
    """Die in a write, or beside an atomic one: in the number-th, with a share of it gone out."""

    def plant() -> None:
        left = [number]
        put, whole = stream.Stream._put, stream.write_whole

        def die() -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        def torn(self: stream.Stream, content: bytes) -> None:
            left[0] -= 1
            if left[0] == 0:
                put(self, content[: int(len(content) * share)])
                die()
            put(self, content)

        def interrupted(path: Path, content: bytes) -> None:
            left[0] -= 1
            if left[0] == 0:
                if share < 0.5:
                    path.with_name(path.name + ".partial").write_bytes(content[: len(content) // 2])
                else:
                    whole(path, content)
                die()
            whole(path, content)

        stream.Stream._put = torn  # type: ignore[method-assign]
        for name, module in list(sys.modules.items()):
            if name.startswith("pipeline.") and getattr(module, "write_whole", None) is whole:
                module.write_whole = interrupted  # type: ignore[attr-defined]

    return plant


def one_run(
    chance: random.Random, arguments: list[str], kills: int, writes: int, seconds: float
) -> tuple[int, int]:
    """Kill a run a number of times, and let it end; how often it died, and its exit code."""
    died = 0
    while True:
        wait = None
        doom = never
        if died < kills:
            # Few places at a time, so that a run of many kills is cut into many pieces.
            share = 2.0 / max(kills, 2)
            if chance.random() < 0.5:
                doom = in_a_write(1 + int(chance.random() * share * writes), chance.random())
            else:
                wait = chance.random() * max(seconds * share, 0.3)
        pid = child(arguments, doom)
        if wait is not None:
            time.sleep(wait)
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        if os.WIFEXITED(status):
            return died, os.WEXITSTATUS(status)
        died += 1


def kill(total: int, seed: int, output: Path, arguments: list[str], per_run: int) -> None:
    """Measure a run that nobody kills, then kill others until there were enough kills."""
    chance = random.Random(seed)

    def told(folder: Path) -> list[str]:
        return ["run", "--output", str(folder), *(a.replace("@", str(folder)) for a in arguments)]

    started = time.perf_counter()
    code = os.WEXITSTATUS(os.waitpid(child(told(output / "whole"), never), 0)[1])
    seconds = time.perf_counter() - started
    rows = len((output / "whole/results.jsonl").read_bytes().splitlines())
    tell(folder="whole", kills=0, code=code, rows=rows)
    done = number = 0
    while done < total:
        number += 1
        wanted = min(total - done, chance.randint(1, per_run))
        folder = f"killed-{number}"
        died, code = one_run(chance, told(output / folder), wanted, rows * _WRITES_A_ROW, seconds)
        done += died
        tell(folder=folder, kills=died, code=code)


def tell(**facts: object) -> None:
    """Print a line of JSON."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    kill(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[5:], int(sys.argv[4]))
