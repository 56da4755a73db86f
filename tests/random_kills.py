"""Kills runs of fxpipe at random points, repeatedly, and resumes each run.

This is a separate program with one thread, so that it can fork. Each child process has the packages
already imported, calls the command as the console script does, and ends by a real SIGKILL. The
signal is sent either from outside after a random time, or by the child itself during a random
write, of which only a random part is written. The files are those of a separately started process;
only the time of the imports is saved.

    python tests/random_kills.py KILLS SEED FOLDER MOST arguments of fxpipe run…

kills runs until there were KILLS kills, at most MOST of one run. It prints one line of JSON for
each run that ended: its output folder below FOLDER, kills and exit code. The first run, ``whole``,
is not killed. In the arguments ``@`` is replaced by the output folder.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import onnxruntime  # noqa: F401 - imported before the fork

from pipeline.cli import main
from pipeline.cli import run as command  # noqa: F401
from pipeline.report import fhir, html, parquet, stream  # noqa: F401
from pipeline.report.dicom import objects  # noqa: F401

_WRITES_A_ROW = 5
Killer = Callable[[], None]


def child(arguments: list[str], prepare_kill: Killer) -> int:
    """Start a run in a child process; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    prepare_kill()
    code = 70
    try:
        main(arguments)
    except SystemExit as leave:
        code = int(leave.code or 0)
    finally:
        os._exit(code)


def never() -> None:
    """Do not kill the run."""


def in_a_write(number: int, share: float) -> Killer:
    """Kill the process during a write.

    Args:
        number: Number of the write, from 1.
        share: Share of the content that is written first. An atomic write is killed before the
            file is replaced if it is below 0.5, else after.
    """

    def prepare() -> None:
        writes_left = [number]
        write_all, whole = stream.write_all, stream.write_whole

        def die() -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        def torn(file: FileIO, content: bytes) -> None:
            writes_left[0] -= 1
            if writes_left[0] == 0:
                write_all(file, content[: int(len(content) * share)])
                die()
            write_all(file, content)

        def interrupted(path: Path, content: bytes) -> None:
            writes_left[0] -= 1
            if writes_left[0] == 0:
                if share < 0.5:
                    path.with_name(path.name + ".partial").write_bytes(content[: len(content) // 2])
                else:
                    whole(path, content)
                die()
            whole(path, content)

        stream.write_all = torn
        for name, module in list(sys.modules.items()):
            if name.startswith("pipeline.") and getattr(module, "write_whole", None) is whole:
                module.write_whole = interrupted  # type: ignore[attr-defined]

    return prepare


def one_run(
    chance: random.Random, arguments: list[str], kills: int, writes: int, seconds: float
) -> tuple[int, int]:
    """Kill a run some times, then let it end; returns the number of kills and its exit code."""
    killed = 0
    while True:
        wait = None
        prepare_kill = never
        if killed < kills:
            # Early kill points, so that a run with many kills is resumed many times.
            share = 2.0 / max(kills, 2)
            if chance.random() < 0.5:
                number = 1 + int(chance.random() * share * writes)
                prepare_kill = in_a_write(number, chance.random())
            else:
                wait = chance.random() * max(seconds * share, 0.3)
        pid = child(arguments, prepare_kill)
        if wait is not None:
            time.sleep(wait)
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        if os.WIFEXITED(status):
            return killed, os.WEXITSTATUS(status)
        killed += 1


def kill(total: int, seed: int, output: Path, arguments: list[str], per_run: int) -> None:
    """Measure an uninterrupted run, then kill others until there were ``total`` kills."""
    chance = random.Random(seed)

    def command_line(folder: Path) -> list[str]:
        return ["run", "--output", str(folder), *(a.replace("@", str(folder)) for a in arguments)]

    started = time.perf_counter()
    code = os.WEXITSTATUS(os.waitpid(child(command_line(output / "whole"), never), 0)[1])
    seconds = time.perf_counter() - started
    rows = len((output / "whole/results.jsonl").read_bytes().splitlines())
    print_json(folder="whole", kills=0, code=code, rows=rows)
    done = number = 0
    while done < total:
        number += 1
        kills = min(total - done, chance.randint(1, per_run))
        folder = f"killed-{number}"
        words = command_line(output / folder)
        killed, code = one_run(chance, words, kills, rows * _WRITES_A_ROW, seconds)
        done += killed
        print_json(folder=folder, kills=killed, code=code)


def print_json(**facts: object) -> None:
    """Print one line of JSON."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    kill(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[5:], int(sys.argv[4]))
