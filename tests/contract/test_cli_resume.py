"""An unfinished run: gone on with, refused, forgotten; and two that want the same folder."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bundles import spec, standard_specs, write_bundles, write_png
from click.testing import CliRunner, Result
from run_outputs import leftovers

from pipeline.bundle import Kind
from pipeline.cli import main
from pipeline.report.csv_table import CsvWriter
from pipeline.report.journal import NAME
from pipeline.report.stream import Stream

ROOT = Path(__file__).parents[2]
ALL = ("--report", "--fhir", "--parquet", "--studies", "folder")


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A working folder with weights and ten pictures in it."""
    write_bundles(tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FXPIPE_WEIGHTS", raising=False)
    for i in range(10):
        write_png(tmp_path / f"in/{i // 5}/{i}.png", {"hand": 0.9}, {"hand": 0.05 + 0.1 * i})
    return tmp_path


def fxpipe(*arguments: object, output: str = "results", source: str = "in") -> Result:
    words = ["run", "--input", source, "--device", "cpu", "--output", output, *map(str, arguments)]
    return CliRunner().invoke(main, words, catch_exceptions=False)


def break_off(rows: int, *arguments: object) -> None:
    """A run that dies when it has written that many rows of the table; one more than is sure."""
    write = CsvWriter.write
    left = [rows]

    def dying(self, outcome):
        write(self, outcome)
        left[0] -= 1
        if not left[0]:
            raise RuntimeError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CsvWriter, "write", dying)
        with pytest.raises(RuntimeError):
            fxpipe(*arguments)
    assert (Path("results") / NAME).exists()


def equals_an_uninterrupted_run(*arguments: object) -> bool:
    """But for overlays of pictures that are there no more: no row names them."""
    assert fxpipe(*arguments, output="whole").exit_code == 0
    found, wanted = leftovers(Path("results")), leftovers(Path("whole"))
    more = set(found) - set(wanted)
    return wanted == {name: found.get(name) for name in wanted} and all(
        name.startswith("heatmaps/") for name in more
    )


def test_it_goes_on_by_itself_and_the_summary_tells_all(place):
    break_off(7, *ALL)
    result = fxpipe(*ALL)
    assert result.exit_code == 0, result.output
    assert "resuming the unfinished run in results: 5 files done\n" in result.stderr
    assert "10 in all" in result.stdout
    assert "2 studies" in result.stdout
    assert "0/0.png" in result.stdout
    assert equals_an_uninterrupted_run(*ALL)
    assert not (place / "results" / NAME).exists()
    # Finished: the next one is a new one.
    again = fxpipe(*ALL, "--resume")
    assert (again.exit_code, again.stderr) == (0, "")


def test_quiet_says_nothing(place):
    break_off(7)
    result = fxpipe("--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_it_may_break_off_again_and_again(place):
    for _ in range(4):
        break_off(4, *ALL)
    assert "8 files done" in fxpipe(*ALL).stderr
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
        (lambda: [p.unlink() for p in Path("in").rglob("[3-9].png")], 3, None),
        (lambda: Path("in/1/9.png").unlink(), 6, None),
        (lambda: [p.unlink() for p in Path("results/heatmaps").iterdir()], 5, ".png is missing"),
    ],
)
def test_files_that_changed_came_or_went(place, change, done, why):
    break_off(8, *ALL)
    change()
    result = fxpipe(*ALL)
    assert result.exit_code == 0
    assert f"{done} files done" in result.stderr
    assert ("are done again (" in result.stderr) == bool(why)
    assert why is None or why in result.stderr
    assert equals_an_uninterrupted_run(*ALL)


@pytest.mark.parametrize("name", ["results.csv", "results.jsonl", "report.html", NAME])
@pytest.mark.parametrize("harm", ["cut", "zeros", "longer", "gone"])
def test_what_a_power_cut_or_a_spreadsheet_does_to_an_output(place, name, harm):
    break_off(8, *ALL)
    path = place / "results" / name
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    keep = len(b"".join(lines[:-3])) + 5
    zeros = b"\0" * (len(content) - keep)
    damaged = {"cut": content[:keep], "zeros": content[:keep] + zeros, "longer": content + b'"x,\n'}
    path.unlink() if harm == "gone" else path.write_bytes(damaged[harm])
    result = fxpipe(*ALL)
    assert result.exit_code == 0
    assert ("resuming" in result.stderr) == ((name, harm) != (NAME, "gone"))
    assert equals_an_uninterrupted_run(*ALL)


def test_a_file_that_could_not_be_read_is_tried_again(place):
    (place / "in/0/00.png").symlink_to(place / "later.png")
    break_off(6)
    again = fxpipe()
    assert "4 files done" in again.stderr  # for the same reason it cannot be read: nothing to redo
    assert again.exit_code == 1
    break_off(6)
    write_png(place / "later.png", {"hand": 0.9}, {"hand": 0.9})
    result = fxpipe()
    assert (result.exit_code, "1 file done" in result.stderr) == (0, True)
    assert equals_an_uninterrupted_run()


def test_another_configuration_is_refused_with_the_differences(place):
    break_off(6)
    before = leftovers(place / "results")
    result = fxpipe("--operating-point", "specific", "--set", "contour=0.4", "--fhir")
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
    assert leftovers(place / "results") == before
    assert fxpipe("--operating-point", "specific", "--restart").exit_code == 0


def test_what_only_makes_it_faster_is_no_other_configuration(place):
    break_off(6)
    result = fxpipe("--batch-size", 1, "--workers", 1)
    assert "4 files done" in result.stderr
    assert equals_an_uninterrupted_run()


def test_other_files_and_other_weights_are_refused(place):
    break_off(6)
    write_png(place / "elsewhere/a.png", {"hand": 0.9})
    refused = fxpipe(source="elsewhere")
    assert refused.exit_code == 2
    assert f"input: was {place / 'in'}, now {place / 'elsewhere'}" in refused.stderr
    both = fxpipe("--input", "elsewhere")
    assert f"now {place / 'in'}, {place / 'elsewhere'}" in both.stderr
    manifest = json.loads((place / "weights/manifest.json").read_text())
    digest = {entry["name"]: entry["sha256"] for entry in manifest["bundles"]}["fracture-hand"]
    other = spec("fracture-hand", Kind.FRACTURE, temperature=(2.0,))
    specs = [other if one.name == other.name else one for one in standard_specs()]
    write_bundles(place / "others", specs)
    refused = fxpipe("--weights", "others")
    assert refused.exit_code == 2
    assert f"bundle fracture-hand: was {digest[:12]}, now " in refused.stderr


def test_an_unreadable_journal_is_not_thrown_away(place):
    break_off(6)
    (place / "results" / NAME).write_text("what is this\n")
    result = fxpipe()
    assert result.exit_code == 2
    assert "cannot be read" in result.stderr
    assert fxpipe("--restart").exit_code == 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG])
def test_a_full_disk_is_3_and_the_run_can_go_on(place, monkeypatch, code):
    put = Stream._put
    room = [12_000]

    def full(self, content):
        part = content[: max(room[0], 0)]
        room[0] -= len(content)
        put(self, part)
        if len(part) < len(content):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Stream, "_put", full)
    result = fxpipe("--fhir")
    assert result.exit_code == 3
    assert "cannot be written: " + os.strerror(code) in result.stderr
    assert "it resumes where it stopped" in result.stderr
    monkeypatch.undo()
    monkeypatch.chdir(place)
    assert "resuming" in fxpipe("--fhir").stderr
    assert equals_an_uninterrupted_run("--fhir")


def test_a_full_disk_while_an_overlay_is_written(place, monkeypatch):
    replace = Path.replace

    def full(self, target):
        if self.name.endswith(".png.partial"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    result = fxpipe(*ALL)
    assert result.exit_code == 3
    assert ".png: cannot be written: No space left on device" in result.stderr
    assert not list((place / "results/heatmaps").iterdir())
    monkeypatch.setattr(Path, "replace", replace)
    assert fxpipe(*ALL).exit_code == 0
    assert equals_an_uninterrupted_run(*ALL)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows kills without asking")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["term", "int"]
)
def test_a_run_that_is_stopped_says_how_to_go_on(place, number, code):
    write = CsvWriter.write
    left = [6]

    def stopped(self, outcome):
        write(self, outcome)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CsvWriter, "write", stopped)
        result = fxpipe(*ALL)
    assert result.exit_code == code
    assert "stopped after 4 files; the same command resumes from there" in result.stderr
    assert "4 files done" in fxpipe(*ALL).stderr
    assert equals_an_uninterrupted_run(*ALL)


def test_a_second_run_on_one_folder_stops_with_a_message(place):
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
        refused = fxpipe()
        assert refused.exit_code == 2
        assert (
            f"results: another fxpipe process writes to this folder (process {holder.pid} on"
            in refused.stderr
        )
        assert [path.name for path in (place / "results").iterdir()] == ["fxpipe.lock"]
        holder.kill()
        holder.wait()
    assert (place / "results/fxpipe.lock").exists()  # as it was left behind
    assert fxpipe().exit_code == 0
    assert not (place / "results/fxpipe.lock").exists()
