"""Unfinished runs: resumed, refused or restarted; and two runs on one output folder."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from bundles import spec, standard_specs, write_png
from click.testing import Result
from command_line import after_rows, break_off, fxpipe
from run_outputs import output_contents
from tiny_networks import write_bundles

from pipeline.bundle import Kind
from pipeline.report import stream
from pipeline.report.journal import NAME

ROOT = Path(__file__).parents[2]
ALL = ("--report", "--fhir", "--parquet", "--studies", "folder")


@pytest.fixture
def place(place) -> Path:
    """A working folder with weights and ten pictures in it."""
    for i in range(10):
        write_png(place / f"in/{i // 5}/{i}.png", {"hand": 0.9}, {"hand": 0.05 + 0.1 * i})
    return place


def run(*arguments: object, output: str = "results", source: str = "in") -> Result:
    return fxpipe(
        *("run", "--input", source, "--device", "cpu", "--output", output, *arguments),
    )


def break_off_run(rows: int, *arguments: object) -> None:
    """A run that fails after some rows; all files but the last two are done."""
    break_off(rows, lambda: run(*arguments))


def equals_an_uninterrupted_run(*arguments: object) -> bool:
    """Whether all outputs are equal, except heatmaps of removed pictures, which no row names."""
    assert run(*arguments, output="whole").exit_code == 0
    actual, expected = output_contents(Path("results")), output_contents(Path("whole"))
    more = set(actual) - set(expected)
    return expected == {name: actual.get(name) for name in expected} and all(
        name.startswith("heatmaps/") for name in more
    )


def test_run_is_resumed_and_the_summary_counts_all_rows(place):
    break_off_run(7, *ALL)
    result = run(*ALL)
    assert result.exit_code == 0, result.output
    assert "resuming the unfinished run in results: 5 files done\n" in result.stderr
    assert "10 in all" in result.stdout
    assert "2 studies" in result.stdout
    assert "0/0.png" in result.stdout
    assert equals_an_uninterrupted_run(*ALL)
    assert not (place / "results" / NAME).exists()
    # The run has finished: the next one starts from the beginning.
    again = run(*ALL, "--resume")
    assert (again.exit_code, again.stderr) == (0, "")


def remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink()


def test_quiet_prints_nothing(place):
    break_off_run(7)
    result = run("--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_run_can_be_interrupted_several_times(place):
    for _ in range(4):
        break_off_run(4, *ALL)
    assert "8 files done" in run(*ALL).stderr
    assert equals_an_uninterrupted_run(*ALL)


@pytest.mark.parametrize(
    ("change", "done", "why"),
    [
        (
            lambda: write_png(Path("in/0/2.png"), {"hand": 0.9}, {"hand": 0.99}),
            2,
            "0/2.png was chan",
        ),
        (lambda: write_png(Path("in/0/15.png"), {"elbow": 0.9}), 2, "0/15.png was added"),
        (lambda: Path("in/0/3.png").unlink(), 3, "0/4.png was added, or 0/3.png was removed"),
        (lambda: remove(Path("in").rglob("[3-9].png")), 3, None),
        (lambda: Path("in/1/9.png").unlink(), 6, None),
        (lambda: remove(Path("results/heatmaps").iterdir()), 5, ".png is missing"),
    ],
)
def test_changed_added_and_removed_files(place, change, done, why):
    break_off_run(8, *ALL)
    change()
    result = run(*ALL)
    assert result.exit_code == 0
    assert f"{done} files done" in result.stderr
    assert ("are done again (" in result.stderr) == bool(why)
    assert why is None or why in result.stderr
    assert equals_an_uninterrupted_run(*ALL)


@pytest.mark.parametrize("name", ["results.csv", "results.jsonl", "report.html", NAME])
@pytest.mark.parametrize("harm", ["cut", "zeros", "longer", "gone"])
def test_damaged_outputs_are_repaired(place, name, harm):
    break_off_run(8, *ALL)
    path = place / "results" / name
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    keep = len(b"".join(lines[:-3])) + 5
    zeros = b"\0" * (len(content) - keep)
    damaged = {"cut": content[:keep], "zeros": content[:keep] + zeros, "longer": content + b'"x,\n'}
    path.unlink() if harm == "gone" else path.write_bytes(damaged[harm])
    result = run(*ALL)
    assert result.exit_code == 0
    assert ("resuming" in result.stderr) == ((name, harm) != (NAME, "gone"))
    assert equals_an_uninterrupted_run(*ALL)


def test_unreadable_file_is_read_again(place):
    (place / "in/0/00.png").symlink_to(place / "later.png")
    break_off_run(6)
    again = run()
    assert "4 files done" in again.stderr  # still unreadable for the same reason
    assert again.exit_code == 1
    break_off_run(6)
    write_png(place / "later.png", {"hand": 0.9}, {"hand": 0.9})
    result = run()
    assert (result.exit_code, "1 file done" in result.stderr) == (0, True)
    assert equals_an_uninterrupted_run()


def test_other_configuration_is_refused_and_differences_are_listed(place):
    break_off_run(6)
    before = output_contents(place / "results")
    result = run("--operating-point", "specific", "--set", "contour=0.4", "--fhir")
    assert result.exit_code == 2
    for line in (
        "results: it contains an unfinished run of another configuration; to resume, the "
        "configuration must be the same",
        "  - operating_point: was unset, now specific",
        "  - contour: was 0.5, now 0.4",
        "  - fhir: was False, now True",
        "--restart",
    ):
        assert line in result.stderr
    assert output_contents(place / "results") == before
    assert run("--operating-point", "specific", "--restart").exit_code == 0


def test_performance_settings_may_change(place):
    break_off_run(6)
    result = run("--batch-size", 1, "--workers", 1)
    assert "4 files done" in result.stderr
    assert equals_an_uninterrupted_run()


def test_other_input_and_other_weights_are_refused(place):
    break_off_run(6)
    write_png(place / "elsewhere/a.png", {"hand": 0.9})
    refused = run(source="elsewhere")
    assert refused.exit_code == 2
    assert f"input: was {place / 'in'}, now {place / 'elsewhere'}" in refused.stderr
    both = run("--input", "elsewhere")
    assert f"now {place / 'in'}, {place / 'elsewhere'}" in both.stderr
    manifest = json.loads((place / "weights/manifest.json").read_text())
    digest = {entry["name"]: entry["sha256"] for entry in manifest["bundles"]}["fracture-hand"]
    other = spec("fracture-hand", Kind.FRACTURE, temperature=(2.0,))
    specs = [other if one.name == other.name else one for one in standard_specs()]
    write_bundles(place / "others", specs)
    refused = run("--weights", "others")
    assert refused.exit_code == 2
    assert f"bundle fracture-hand: was {digest[:12]}, now " in refused.stderr


def test_unreadable_journal_is_not_overwritten(place):
    break_off_run(6)
    (place / "results" / NAME).write_text("what is this\n")
    result = run()
    assert result.exit_code == 2
    assert "cannot be read" in result.stderr
    assert run("--restart").exit_code == 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG])
def test_full_disk_exits_3_and_the_run_can_be_resumed(place, monkeypatch, code):
    write_all = stream.write_all
    free_bytes = [12_000]

    def full(file, content):
        part = content[: max(free_bytes[0], 0)]
        free_bytes[0] -= len(content)
        write_all(file, part)
        if len(part) < len(content):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(stream, "write_all", full)
    result = run("--fhir")
    assert result.exit_code == 3
    assert "cannot be written: " + os.strerror(code) in result.stderr
    assert "it resumes where it stopped" in result.stderr
    monkeypatch.undo()
    monkeypatch.chdir(place)
    assert "resuming" in run("--fhir").stderr
    assert equals_an_uninterrupted_run("--fhir")


def test_full_disk_while_a_heatmap_is_written(place, monkeypatch):
    replace = Path.replace

    def full(self, target):
        if self.name.endswith(".png.partial"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    result = run(*ALL)
    assert result.exit_code == 3
    assert ".png: cannot be written: No space left on device" in result.stderr
    assert not list((place / "results/heatmaps").iterdir())
    monkeypatch.setattr(Path, "replace", replace)
    assert run(*ALL).exit_code == 0
    assert equals_an_uninterrupted_run(*ALL)


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals on Windows")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["term", "int"]
)
def test_stopped_run_reports_how_to_resume(place, number, code):
    with after_rows(6, lambda: os.kill(os.getpid(), number)):
        result = run(*ALL)
    assert result.exit_code == code
    assert "stopped after 4 files; the same command resumes from there" in result.stderr
    assert "4 files done" in run(*ALL).stderr
    assert equals_an_uninterrupted_run(*ALL)


def test_second_run_on_the_same_folder_is_refused(place):
    code = (
        "import sys; from pathlib import Path; from pipeline.lock import exclusive\n"
        "with exclusive(Path('results')): print('held', flush=True); sys.stdin.read()"
    )
    (place / "results").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        refused = run()
        assert refused.exit_code == 2
        assert (
            f"results: another fxpipe process writes to this folder (process {holder.pid} on"
            in refused.stderr
        )
        assert [path.name for path in (place / "results").iterdir()] == ["fxpipe.lock"]
        holder.kill()
        holder.wait()
    assert (place / "results/fxpipe.lock").exists()  # left by the killed process
    assert run().exit_code == 0
    assert not (place / "results/fxpipe.lock").exists()
