"""``fxpipe bench`` from the command line, with networks that are small enough to be fast."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundles import write_png
from click.testing import Result
from command_line import fxpipe

from pipeline.bench.results import PARTS
from pipeline.cli import bench
from pipeline.errors import DeviceError, MissingExtraError

SHORT = ("--rounds", "2", "--pictures", "5", "--set", "batch_size=2")


@pytest.fixture
def place(place) -> Path:
    """A working folder with weights, three pictures, and one that cannot be decoded."""
    write_png(place / "in/a.png", {"hand": 0.9}, {"hand": 0.9})
    write_png(place / "in/b.png", {"elbow": 0.9, "hand": 0.9})
    write_png(place / "in/c.png", {})
    (place / "in/d.png").write_bytes(b"")
    return place


def run_bench(*arguments: object) -> Result:
    return fxpipe("bench", *arguments)


def test_file_contains_the_figures_of_fxpipe(place):
    result = run_bench(
        "--input", "in", "--device", "cpu", "--only", "fxpipe", "--fps-limit", *SHORT
    )
    assert result.exit_code == 0, result.output
    report = json.loads((place / "bench.json").read_text(encoding="utf-8"))
    assert list(report) == [
        *("schema_version", "created", "machine", "versions", "weights", "settings", "pictures"),
        *("files", "files_left_out", "rounds", "input_px", "contenders", "not_measured"),
    ]
    assert (report["pictures"], report["files"], report["files_left_out"]) == (5, 3, 1)
    assert report["input_px"] == [[32, 32]]
    assert report["settings"]["batch_size"] == 2
    assert len(report["weights"]) == 5
    (row,) = report["contenders"]
    assert list(row) == [
        *("name", "device", "rounds_s", "seconds", "images_per_s", "reference", "ratio"),
        *("session_images_per_s", "session_share", "parts_ms", "looks", "peak_mb", "peak_note"),
        *("facts", "shares"),
    ]
    assert (row["name"], row["device"]) == ("fxpipe-fp32-cpu", "cpu")
    assert len(row["rounds_s"]) == report["rounds"] == 2
    assert row["seconds"]["low"] <= row["seconds"]["median"] <= row["seconds"]["high"]
    assert (row["reference"], row["ratio"]) == (None, None)
    assert set(row["parts_ms"]) == set(row["shares"]) == set(PARTS)
    assert all(row["parts_ms"][name] > 0 for name in PARTS if name != "idle")
    assert row["looks"] == 1 + 2 + 0 + 1 + 2
    assert row["session_images_per_s"]["median"] > row["images_per_s"]["median"]
    missing = "not available for every bundle; available: fp32"
    assert report["not_measured"] == {"fxpipe-fp16-cpu": missing, "fxpipe-int8-cpu": missing}


def test_table_describes_the_measurement(place):
    result = run_bench("--input", "in", "--only", "fxpipe-fp32-cpu", *SHORT)
    assert result.exit_code == 0, result.output
    assert "fxpipe-fp32-cpu" in result.stdout
    about = "5 pictures of 3 files, read again; 1 skipped (cannot be decoded); 32 x 32 px"
    assert f"{about}; batches of 2; 2 rounds" in result.stdout
    assert result.stdout.endswith("bench.json\n")


def test_quiet_only_writes_the_file(place):
    words = ("--only", "fxpipe-fp32-cpu", "--quiet", "--output", "deep/speed.json")
    result = run_bench("--input", "in", *words, *SHORT)
    assert (result.exit_code, result.output) == (0, "")
    assert json.loads((place / "deep/speed.json").read_text())["contenders"]


def test_contender_that_cannot_be_built_is_reported_with_its_reason(place):
    words = ("--device", "cpu", "--only", "fxpipe-fp32", "--only", "torch-batched")
    result = run_bench("--input", "in", *words, *SHORT)
    assert result.exit_code == 0, result.output
    report = json.loads((place / "bench.json").read_text())
    assert [row["name"] for row in report["contenders"]] == ["fxpipe-fp32-cpu"]
    assert "have no names" in report["not_measured"]["torch-batched-cpu"]
    assert "not measured: torch-batched-cpu: fracture-elbow-fp32.onnx: its" in result.stdout


class _NoTorch:
    """Replaces a process pool: reports that torch is not installed."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def submit(self, *_):
        return self

    def result(self):
        raise MissingExtraError("the module 'torch' is not installed", "pip install it")


def test_without_torch_the_others_are_measured(place, monkeypatch):
    monkeypatch.setattr(bench, "ProcessPoolExecutor", _NoTorch)
    result = run_bench("--input", "in", "--device", "cpu", *SHORT)
    assert result.exit_code == 0, result.output
    report = json.loads((place / "bench.json").read_text())
    missing = "the module 'torch' is not installed (pip install it)"
    naive = ("torch-loop-cpu", "torch-batched-cpu", "onnx-fp32-cpu")
    assert [report["not_measured"][name] for name in naive] == [missing] * 3
    assert [row["name"] for row in report["contenders"]] == ["fxpipe-fp32-cpu"]


def test_no_measurable_contender_exits_3(place, monkeypatch):
    monkeypatch.setattr(bench, "ProcessPoolExecutor", _NoTorch)
    result = run_bench("--input", "in", "--device", "cpu", "--only", "torch", *SHORT)
    assert result.exit_code == 3
    assert "torch-loop-cpu: the module 'torch' is not installed" in result.stderr
    assert not (place / "bench.json").exists()


def without_gpu(device):
    if device != "cpu":
        raise DeviceError(f"device {device!r} was requested but cannot be used: no card")
    return device


def test_auto_reports_why_no_gpu_is_measured(place, monkeypatch):
    monkeypatch.setattr(bench, "resolve_device", without_gpu)
    assert run_bench("--input", "in", "--only", "fxpipe-fp32", *SHORT).exit_code == 0
    report = json.loads((place / "bench.json").read_text())
    assert [row["name"] for row in report["contenders"]] == ["fxpipe-fp32-cpu"]
    assert list(report["not_measured"]) == ["fxpipe-fp32-cuda"]
    assert "no card" in report["not_measured"]["fxpipe-fp32-cuda"]


def test_named_device_is_not_replaced(place, monkeypatch):
    monkeypatch.setattr(bench, "resolve_device", without_gpu)
    result = run_bench("--input", "in", "--device", "cuda", *SHORT)
    assert result.exit_code == 3
    assert "device 'cuda' was requested" in result.stderr


def test_auto_measures_both_devices_if_both_work(place, monkeypatch):
    names: list[str] = []

    def run_rounds(entrants, *_):
        names.extend(entrant.name for entrant in entrants)
        return [], {}

    monkeypatch.setattr(bench, "resolve_device", lambda device: device)
    monkeypatch.setattr(bench, "ProcessPoolExecutor", _NoTorch)
    monkeypatch.setattr(bench, "run_rounds", run_rounds)
    assert run_bench("--input", "in", *SHORT).exit_code == 3  # nothing was measured
    assert names == [
        *("fxpipe-fp32-cpu", "fxpipe-fp16-cpu", "fxpipe-int8-cpu"),
        *("fxpipe-fp32-cuda", "fxpipe-fp16-cuda", "fxpipe-int8-cuda"),
        *("torch-loop-cpu", "torch-batched-cpu", "onnx-fp32-cpu"),
        *("torch-loop-cuda", "torch-batched-cuda", "onnx-fp32-cuda"),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "nowhere"], "nowhere"),
        (["--input", "bad"], "1 file(s) of which none can be decoded"),
        (
            ["--input", "in", "--only", "tensorflow"],
            "--only tensorflow: there is no such contender",
        ),
        (["--input", "in", "--only", "torch-l"], "expected one of fxpipe-fp32-cpu"),
        (["--input", "in", "--set", "batch_sise=2"], "did you mean batch_size?"),
        (["--input", "in", "--output", "in/a.png/x.json"], "cannot be written"),
        (["--input", "in", "--rounds", "0"], "--rounds"),
        ([], "--input"),
    ],
)
def test_wrong_usage_exits_2_and_writes_nothing(place, arguments, message):
    (place / "bad").mkdir()
    (place / "bad/a.png").write_bytes(b"")
    result = run_bench(*arguments, "--device", "cpu")
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not (place / "bench.json").exists()


def test_missing_operating_point_is_reported(place):
    words = ("--only", "fxpipe-fp32-cpu", "--set", "operating_point=fancy")
    result = run_bench("--input", "in", *words, *SHORT)
    assert result.exit_code == 3
    assert "available: balanced, specific" in result.stderr
