"""The printed array script, on a Slurm cluster of one node."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

import pytest
from bundles import write_png
from command_line import ROOT, fxpipe
from run_outputs import output_contents
from slurm import cluster


@pytest.fixture
def slurm():
    """A cluster; the path of its folder is short, because sockets are in it."""
    folder = Path(mkdtemp(prefix="slurm-"))
    try:
        with cluster(folder) as running:
            yield running
    finally:
        shutil.rmtree(folder)


def test_killed_task_is_queued_again_and_the_merge_equals_a_single_run(place, slurm, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for i in range(24):
        write_png(place / f"in/{i % 5}/{i}.png", {"hand": 0.9}, {"hand": 0.02 + 0.04 * i})
    (place / "in" / "notes.txt").write_text("no picture")
    options = ("--studies", "folder", "--device", "cpu")
    planned = fxpipe(
        "plan", "--input", "in", "--chunk", "2", "--slurm", "3", "--",
        "--weights", place / "weights", *options,
    )  # fmt: skip
    assert planned.exit_code == 0, planned.output
    script = place / "job.sh"
    script.write_text(planned.stdout)
    assert slurm.run("sbatch", script).startswith("Submitted batch job")
    assert _kill_one_task(place)
    slurm.wait()
    logs = [path.read_text() for path in sorted((place / "results").glob("slurm-*.log"))]
    assert len(logs) == 3, slurm.logs()
    merged = fxpipe("merge", "--plan", "plan.sqlite")
    assert merged.exit_code == 0, (merged.output, logs)
    assert "25 in all" in merged.stdout
    assert fxpipe("run", "--input", "in", "--output", "whole", *options).exit_code == 0
    contents = output_contents(Path("whole"))
    actual = {name: _content(place / "results", name) for name in contents}
    assert actual == contents


def _content(folder: Path, name: str):
    other = folder.parent / "merged"
    other.mkdir(exist_ok=True)
    shutil.copy(folder / name, other)
    return output_contents(other)[name]


def _kill_one_task(place: Path, seconds: float = 90.0) -> bool:
    """Kill the first process of a task that has written rows."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for path in (place / "results").glob("chunks/*/unfinished/results.csv"):
            holder = path.parent / "fxpipe.lock"
            try:
                process = int(holder.read_text().split('"pid": ')[1].split(",")[0])
                os.kill(process, signal.SIGKILL)
            except (OSError, IndexError, ValueError):
                continue
            return True
        time.sleep(0.02)
    return False


def test_script_is_valid_shell(place, tmp_path):
    write_png(place / "a b/c'd.png", {"hand": 0.9}, {"hand": 0.9})
    result = fxpipe(
        "plan", "--input", "a b", "--output", "p q/plan.sqlite", "--slurm", "9", "--results", "r s",
        "--", "--operating-point", "it's",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "#SBATCH --array=1-1\n" in result.stdout
    program = "import json, sys; print(json.dumps(sys.argv[1:]))"
    script = result.stdout.replace("-m pipeline.cli", f'-c "{program}"')
    done = subprocess.run(
        ["sh"], input=script, capture_output=True, text=True, check=True,
        env={**os.environ, "SLURM_ARRAY_TASK_ID": "1"},
    )  # fmt: skip
    words = json.loads(done.stdout)
    plan = str(place / "p q/plan.sqlite")
    assert words == [
        "run", "--plan", plan, "--output", str(place / "r s"), "--quiet",
        "--operating-point", "it's", "--shard", "1/1",
    ]  # fmt: skip
    assert sys.executable in result.stdout


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (1, 0), (2, 2), (3, 3), (137, 137)])
def test_only_ends_that_a_repetition_may_mend_are_queued_again(place, tmp_path, code, expected):
    write_png(place / "in/a.png", {"hand": 0.9}, {"hand": 0.9})
    script = fxpipe("plan", "--input", "in", "--slurm", "1").stdout
    script = script.replace("-m pipeline.cli", f"-c 'import sys; sys.exit({code})'")
    tool = tmp_path / "bin/scontrol"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\necho $* >> {tmp_path}/queued\n")
    tool.chmod(0o755)
    variables = {
        "PATH": f"{tool.parent}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "1",
        "SLURM_ARRAY_JOB_ID": "7",
    }  # fmt: skip
    for restarts in ("9", "10"):
        done = subprocess.run(
            ["sh"], input=script, text=True, check=False,
            env={**os.environ, **variables, "SLURM_RESTART_COUNT": restarts},
        )  # fmt: skip
        assert done.returncode == expected
    queued = tmp_path / "queued"
    assert (queued.read_text() if queued.exists() else "") == ("requeue 7_1\n" if code > 2 else "")
