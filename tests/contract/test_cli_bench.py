"""``fxpipe bench`` as its users meet it, with networks so small that nothing takes time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundles import write_bundles, write_png
from click.testing import CliRunner, Result

from pipeline.bench.results import PARTS
from pipeline.cli import bench, main
from pipeline.errors import DeviceError, MissingExtraError

SHORT = ("--rounds", "2", "--pictures", "5", "--set", "batch_size=2")


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A working folder with weights, three pictures, and one that cannot be decoded."""
    write_bundles(tmp_path / "weights")
    write_png(tmp_path / "in/a.png", {"hand": 0.9}, {"hand": 0.9})
    write_png(tmp_path / "in/b.png", {"elbow": 0.9, "hand": 0.9})
    write_png(tmp_path / "in/c.png", {})
    (tmp_path / "in/d.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FXPIPE_WEIGHTS", raising=False)
    return tmp_path


def fxpipe(*arguments: object) -> Result:
    words = [str(argument) for argument in ("bench", *arguments)]
    return CliRunner().invoke(main, words, catch_exceptions=False)


def test_figures_of_the_own_networks(place):
    result = fxpipe("--input", "in", "--device", "cpu", "--only", "fxpipe", "--fps-limit", *SHORT)
    assert result.exit_code == 0, result.output
    told = json.loads((place / "bench.json").read_text(encoding="utf-8"))
    assert list(told) == [
        *("schema_version", "created", "machine", "versions", "weights", "settings", "pictures"),
        *("files", "files_left_out", "rounds", "input_px", "contenders", "not_measured"),
    ]
    assert (told["pictures"], told["files"], told["files_left_out"]) == (5, 3, 1)
    assert told["input_px"] == [[32, 32]]
    assert told["settings"]["batch_size"] == 2
    assert len(told["weights"]) == 5
    (row,) = told["contenders"]
    assert list(row) == [
        *("name", "device", "rounds_s", "seconds", "images_per_s", "reference", "ratio"),
        *("session_images_per_s", "session_share", "parts_ms", "looks", "peak_mb", "peak_note"),
        *("facts", "shares"),
    ]
    assert (row["name"], row["device"]) == ("fxpipe-fp32-cpu", "cpu")
    assert len(row["rounds_s"]) == told["rounds"] == 2
    assert row["seconds"]["low"] <= row["seconds"]["median"] <= row["seconds"]["high"]
    assert (row["reference"], row["ratio"]) == (None, None)
    assert set(row["parts_ms"]) == set(row["shares"]) == set(PARTS)
    assert all(row["parts_ms"][name] > 0 for name in PARTS if name != "idle")
    assert row["looks"] == 1 + 2 + 0 + 1 + 2
    assert row["session_images_per_s"]["median"] > row["images_per_s"]["median"]
    missing = "not available for every bundle; available: fp32"
    assert told["not_measured"] == {"fxpipe-fp16-cpu": missing, "fxpipe-int8-cpu": missing}


def test_the_table_says_what_was_measured(place):
    result = fxpipe("--input", "in", "--only", "fxpipe-fp32-cpu", *SHORT)
    assert result.exit_code == 0, result.output
    assert "fxpipe-fp32-cpu" in result.stdout
    about = "5 pictures of 3 files, read again; 1 skipped (cannot be decoded); 32 x 32 px"
    assert f"{about}; batches of 2; 2 rounds" in result.stdout
    assert result.stdout.endswith("bench.json\n")


def test_quiet_writes_the_file_alone(place):
    words = ("--only", "fxpipe-fp32-cpu", "--quiet", "--output", "deep/speed.json")
    result = fxpipe("--input", "in", *words, *SHORT)
    assert (result.exit_code, result.output) == (0, "")
    assert json.loads((place / "deep/speed.json").read_text())["contenders"]


def test_networks_that_cannot_be_put_together_are_a_reason(place):
    words = ("--device", "cpu", "--only", "fxpipe-fp32", "--only", "torch-batched")
    result = fxpipe("--input", "in", *words, *SHORT)
    assert result.exit_code == 0, result.output
    told = json.loads((place / "bench.json").read_text())
    assert [row["name"] for row in told["contenders"]] == ["fxpipe-fp32-cpu"]
    assert "have no names" in told["not_measured"]["torch-batched-cpu"]
    assert "not measured: torch-batched-cpu: fracture-elbow-fp32.onnx: its" in result.stdout


class _NoTorch:
    """In place of a process: what one without torch answers."""

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
    result = fxpipe("--input", "in", "--device", "cpu", *SHORT)
    assert result.exit_code == 0, result.output
    told = json.loads((place / "bench.json").read_text())
    missing = "the module 'torch' is not installed (pip install it)"
    naive = ("torch-loop-cpu", "torch-batched-cpu", "onnx-fp32-cpu")
    assert [told["not_measured"][name] for name in naive] == [missing] * 3
    assert [row["name"] for row in told["contenders"]] == ["fxpipe-fp32-cpu"]


def test_nothing_that_can_be_measured_is_3(place, monkeypatch):
    monkeypatch.setattr(bench, "ProcessPoolExecutor", _NoTorch)
    result = fxpipe("--input", "in", "--device", "cpu", "--only", "torch", *SHORT)
    assert result.exit_code == 3
    assert "torch-loop-cpu: the module 'torch' is not installed" in result.stderr
    assert not (place / "bench.json").exists()


def without_gpu(device):
    if device != "cpu":
        raise DeviceError(f"device {device!r} was requested but cannot be used: no card")
    return device


def test_auto_tells_why_there_is_no_gpu(place, monkeypatch):
    monkeypatch.setattr(bench, "resolve_device", without_gpu)
    assert fxpipe("--input", "in", "--only", "fxpipe-fp32", *SHORT).exit_code == 0
    told = json.loads((place / "bench.json").read_text())
    assert [row["name"] for row in told["contenders"]] == ["fxpipe-fp32-cpu"]
    assert list(told["not_measured"]) == ["fxpipe-fp32-cuda"]
    assert "no card" in told["not_measured"]["fxpipe-fp32-cuda"]


def test_a_named_device_is_a_promise(place, monkeypatch):
    monkeypatch.setattr(bench, "resolve_device", without_gpu)
    result = fxpipe("--input", "in", "--device", "cuda", *SHORT)
    assert result.exit_code == 3
    assert "device 'cuda' was requested" in result.stderr


def test_auto_measures_both_devices_where_both_work():
    from pipeline.config import RunConfig
    from pipeline.weights.manifest import Manifest

    def working(device):
        return device

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "resolve_device", working)
        here = Path()
        everybody = list(bench._entrants(here, here, Manifest(bundles=()), RunConfig(), here))
    assert [entrant.name for entrant in everybody] == [
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
def test_wrong_usage_is_2_and_writes_nothing(place, arguments, message):
    (place / "bad").mkdir()
    (place / "bad/a.png").write_bytes(b"")
    result = fxpipe(*arguments, "--device", "cpu")
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not (place / "bench.json").exists()


def test_an_operating_point_that_nobody_has_is_a_reason(place):
    words = ("--only", "fxpipe-fp32-cpu", "--set", "operating_point=fancy")
    result = fxpipe("--input", "in", *words, *SHORT)
    assert result.exit_code == 3
    assert "available: balanced, specific" in result.stderr
