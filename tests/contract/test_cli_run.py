"""``fxpipe run`` from the command line: exit codes, files, rows and messages."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
from bundles import for_all, paint, write_png
from command_line import fxpipe, run_python
from PIL import Image
from tiny_networks import write_bundles

from pipeline.report.columns import COLUMNS

ROOT = Path(__file__).parents[2]
HERE = ("--device", "cpu", "--set", "isolate=false")


def rows(output: Path = Path("results")) -> list[dict[str, str]]:
    with (output / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_complete_run_exits_0(place):
    write_png(place / "in/a.png", {"hand": 0.9}, {"hand": 0.9})
    write_png(place / "in/sub/b.png", {"elbow": 0.9}, {"elbow": 0.1})
    result = fxpipe("run", "--input", "in", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert [(r["path"], r["verdict"]) for r in rows()] == [
        ("a.png", "positive"),
        ("sub/b.png", "negative"),
    ]
    assert result.stdout.splitlines()[0] == (
        "weights: weights, fp32 on cpu, trained as test of 2026-01-01"
    )
    assert "2 in all: 1 positive, 1 negative" in result.stdout
    assert result.stdout.rstrip().endswith("A negative answer excludes nothing.")
    lines = (place / "results/results.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["path"] for line in lines] == ["a.png", "sub/b.png"]


def test_single_file_as_input(place):
    path = write_png(place / "in/a.png", {"hand": 0.9}, {"hand": 0.9})
    assert fxpipe("run", "--input", path, "--output", "deep/out").exit_code == 0
    assert rows(Path("deep/out"))[0]["path"] == "a.png"


def test_every_bad_input_has_a_row_and_the_exit_code_is_1(place):
    folder = place / "in"
    good = write_png(folder / "good.png", {"hand": 0.9}, {"hand": 0.9})
    (folder / "zero.png").write_bytes(b"")
    (folder / "text.jpg").write_text("this is a letter")
    (folder / "notes.txt").write_text("this is a letter")
    Image.fromarray(paint({"hand": 0.9})).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:200])
    (folder / "cut.png").write_bytes(good.read_bytes()[:60])
    result = fxpipe("run", "--input", folder)
    assert {row["path"]: row["status"] for row in rows()} == {
        "cut.jpg": "failed",
        "cut.png": "failed",
        "good.png": "ok",
        "notes.txt": "unsupported",
        "text.jpg": "failed",
        "zero.png": "failed",
    }
    assert all(row["error"] for row in rows() if row["status"] != "ok")
    assert result.exit_code == 1


def test_unreadable_file_has_a_row(place):
    path = write_png(place / "in/a.png", {"hand": 0.9})
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user can read every file")
    assert fxpipe("run", "--input", "in").exit_code == 1
    assert rows()[0]["status"] == "failed"


def test_unsupported_picture_is_not_a_failure(place):
    write_png(place / "in/knee.png", {})
    assert fxpipe("run", "--input", "in").exit_code == 0
    assert rows()[0]["status"] == "unsupported"


def test_names_with_invalid_utf8_and_newline(place):
    folder = place / "in"
    good = write_png(folder / "a\nb.png", {"hand": 0.9}).read_bytes()
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).write_bytes(good)
    except OSError:
        pytest.skip("this file system needs UTF-8 names")
    result = run_python(
        *("from pipeline.cli import main; main()", "run", "--input", "in"),
        env={"PYTHONIOENCODING": "ascii"},
    )
    assert result.returncode == 0, result.stderr
    assert [row["path"] for row in rows()] == ["a\\nb.png", "\\xff.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "nowhere"], "nowhere"),
        (["--input", "empty"], "without files"),
        (["--input", "in", "--output", "in"], "is the input folder"),
        (["--input", "in", "--output", "in/a.png"], "cannot be written"),
        (["--input", "in", "--set", "batch_sise=2"], "did you mean batch_size?"),
        (["--input", "in", "--config", "bad.toml"], "bad.toml: workerz is not a setting"),
        (["--input", "in", "--config", "missing.toml"], "missing.toml: cannot be read"),
        (["--input", "in", "--batch-size", "0"], "batch_size"),
        (["--input", "in", "--operating-point", "fancy"], "available: balanced, specific"),
        (["--input", "in", "--device", "tpu"], "tpu"),
        ([], "--input"),
    ],
)
def test_wrong_usage_exits_2_and_writes_nothing(place, arguments, message):
    (place / "empty").mkdir()
    (place / "bad.toml").write_text("workerz = 1\n")
    write_png(place / "in/a.png", {"hand": 0.9})
    result = fxpipe("run", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not (place / "results").exists()


def test_damaged_and_missing_weights_exit_3(place):
    write_png(place / "in/a.png", {"hand": 0.9})
    altered = place / "weights/region-fp32.onnx"
    altered.write_bytes(altered.read_bytes()[:-1] + b"\0")
    result = fxpipe("run", "--input", "in")
    assert result.exit_code == 3
    assert "region-fp32.onnx: sha256 is" in result.stderr
    assert "hint: the file was altered or damaged" in result.stderr
    assert fxpipe("run", "--input", "in", "--weights", "no").exit_code == 3
    assert not (place / "results").exists()


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU")
def test_missing_gpu_exits_3(place):
    write_png(place / "in/a.png", {"hand": 0.9})
    result = fxpipe("run", "--input", "in", "--device", "cuda")
    assert result.exit_code == 3
    assert "device 'cuda' was requested but cannot be used" in result.stderr


def test_options_override_set_and_set_overrides_the_file(place):
    write_png(place / "in/a.png", {"hand": 0.9}, {"hand": 0.6})
    (place / "run.toml").write_text('operating_point = "fancy"\nbatch_size = 2\n')
    chosen = ["--config", "run.toml", "--set", "operating_point=specific"]
    assert fxpipe("run", "--input", "in", *chosen).exit_code == 0
    assert (rows()[0]["operating_point"], rows()[0]["verdict"]) == ("specific", "negative")
    chosen += ["--operating-point", "balanced"]
    assert fxpipe("run", "--input", "in", *chosen).exit_code == 0
    assert (rows()[0]["operating_point"], rows()[0]["verdict"]) == ("balanced", "positive")


def test_results_inside_the_input_are_not_read_again(place):
    write_png(place / "in/a.png", {"hand": 0.9})
    for _ in range(2):
        assert fxpipe("run", "--input", "in", "--output", "in/results").exit_code == 0
        assert [row["path"] for row in rows(place / "in/results")] == ["a.png"]


def test_weights_from_the_environment(place, monkeypatch):
    write_png(place / "in/a.png", {"hand": 0.9})
    (place / "weights").rename(place / "elsewhere")
    monkeypatch.setenv("FXPIPE_WEIGHTS", "elsewhere")
    assert fxpipe("run", "--input", "in").exit_code == 0


def test_specialist_for_all_regions(place):
    write_bundles(place / "for-all", for_all())
    write_png(place / "in/hand.png", {"hand": 0.9}, {"all": 0.9})
    write_png(place / "in/knee.png", {}, {"all": 0.1})
    result = fxpipe("run", "--input", "in", "--weights", "for-all", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "no region stage: every picture gets a verdict" in result.stderr
    assert "in a picture of any region" in " ".join(result.stdout.split())
    columns = ("path", "status", "regions", "region", "verdict")
    assert [tuple(row[name] for name in columns) for row in rows()] == [
        ("hand.png", "ok", "", "all", "positive"), ("knee.png", "ok", "", "all", "negative"),
    ]  # fmt: skip
    assert {r["verdict_hand"] for r in rows()} == {""}
    lines = (place / "results/results.jsonl").read_text(encoding="utf-8").splitlines()
    findings = [json.loads(line)["findings"] for line in lines]
    assert [[f["region"] for f in row] for row in findings] == [["all"], ["all"]]


def test_quiet_prints_nothing(place):
    write_png(place / "in/a.png", {"hand": 0.9})
    result = fxpipe("run", "--input", "in", "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert list(rows()[0]) == list(COLUMNS)


def test_run_never_imports_torch_or_stages(place):
    write_png(place / "in/a.png", {"hand": 0.9})
    code = (
        "import sys; from pipeline.cli import main\n"
        "try: main(['run', '--input', 'in', '--quiet'])\n"
        "except SystemExit as leave: assert leave.code == 0, leave.code\n"
        "names = {'torch', 'torchvision', 'timm', 'sklearn', 'lightning', 'onnx'}\n"
        "names |= {name for name in sys.modules if name.startswith('stages.')}\n"
        "print(sorted(names & set(sys.modules)))"
    )
    result = run_python(code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "[]\n", "")


def test_several_inputs_are_read_in_order(place):
    write_png(place / "in/two/a.png", {"hand": 0.9}, {"hand": 0.9})
    write_png(place / "in/one/a.png", {"hand": 0.9}, {"hand": 0.1})
    write_png(place / "in/three.png", {"elbow": 0.9}, {"elbow": 0.1})
    words = ["--input", "in/two", "--input", place / "in/one", "--input", "in/three.png"]
    result = fxpipe("run", *words, *HERE)
    assert result.exit_code == 0, result.output
    assert [(r["path"], r["verdict"]) for r in rows()] == [
        ("two/a.png", "positive"), ("one/a.png", "negative"), ("three.png", "negative"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", ""], "the text is empty; a path is expected"),
        (["--input", "in", "--output", ""], "the text is empty"),
        (["--input", "in", "--weights", ""], "the text is empty"),
        (["--input", "in", "--input", "in/sub"], "in/sub is inside --input in"),
        (["--input", "in/sub", "--input", "in"], "in/sub is inside --input in"),
        (["--input", "in", "--input", "./in"], "is inside --input"),
        (["--input", "in", "--input", "nowhere"], "nowhere: not found"),
        (["--input", "in", "--input", "empty"], "empty: found a folder without files"),
        (["--input", "in", "--input", "more", "--output", "more"], "more is the input folder"),
        (["--input", "~nobody-of-that-name/x"], "there is no home folder"),
    ],
)
def test_contradictory_inputs_exit_2_and_write_nothing(place, arguments, message):
    (place / "empty").mkdir()
    for name in ("in/a.png", "in/sub/b.png", "more/c.png"):
        write_png(place / name, {"hand": 0.9})
    result = fxpipe("run", *arguments, *HERE)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert not (place / "results").exists()


@pytest.mark.parametrize("command", ["index", "bench", "calibrate"])
def test_second_input_is_refused_by_commands_with_one_input(place, command):
    write_png(place / "in/a.png", {"hand": 0.9})
    result = fxpipe(command, "--input", "in/a.png", "--input", "in/a.png")
    assert result.exit_code == 2
    assert "given 2 times" in " ".join(result.stderr.replace("│", " ").split())


def test_tilde_is_expanded(place, monkeypatch):
    monkeypatch.setenv("HOME", str(place / "home"))
    write_png(place / "home/in/a.png", {"hand": 0.9}, {"hand": 0.9})
    (place / "home/known.csv").write_text("path,study\na.png,S1\n")
    words = ["--input=~/in", "--output=~/out", "--studies=~/known.csv", "--weights", "weights"]
    assert fxpipe("run", *words, *HERE).exit_code == 0
    assert rows(place / "home/out")[0]["study"] == "S1"
    assert not (place / "~").exists()


def test_first_line_names_the_weights(place):
    write_png(place / "in/a.png", {"hand": 0.9}, {"hand": 0.9})
    first = fxpipe("run", "--input", "in", *HERE).stdout.splitlines()[0]
    assert first == "weights: weights, fp32 on cpu, trained as test of 2026-01-01"
    write_bundles(place / "others")
    result = fxpipe("run", "--input", "in", "--weights", "others", *HERE)
    assert result.stdout.startswith("weights: others, ")
    assert fxpipe("run", "--input", "in", "--quiet", *HERE).stdout == ""


NAMES = ("Иванов Пётр/кисть.png", "张伟/手.png", "Müller/Hand.png")


@pytest.mark.parametrize("bom", [False, True])
def test_names_in_other_scripts_and_byte_order_mark_for_excel(place, bom):
    for name in NAMES:
        write_png(place / "in" / name, {"hand": 0.9}, {"hand": 0.9})
    words = ["--studies", "folder", "--set", f"csv_bom={str(bom).lower()}"]
    assert fxpipe("run", "--input", "in", *words, *HERE).exit_code == 0
    for table in ("results.csv", "studies.csv"):
        content = (place / "results" / table).read_bytes()
        assert content.startswith(b"\xef\xbb\xbf") == bom
        assert content.count(b"\xef\xbb\xbf") == bom
        # Excel reads UTF-8 only with a byte order mark, else the local code page.
        text = content.decode("utf-8-sig") if bom else content.decode("cp1251", "replace")
        assert all((name.split("/")[0] in text) == bom for name in NAMES)
    text = (place / "results/results.csv").read_text(encoding="utf-8-sig")
    table_rows = list(csv.DictReader(text.splitlines()))
    assert sorted(row["path"] for row in table_rows) == sorted(NAMES)
    # A table with the mark can define the studies of the next run.
    again = ["--studies", "results/results.csv", "--output", "again", "--quiet"]
    assert fxpipe("run", "--input", "in", *again, *HERE).exit_code == 0
    assert [r["study"] for r in rows(Path("again"))] == [r["study"] for r in table_rows]
