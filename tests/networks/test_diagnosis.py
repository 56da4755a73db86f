"""Every verdict of the doctor, also those that this machine cannot show."""

from __future__ import annotations

import builtins
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections import namedtuple
from pathlib import Path

import pytest
from bundles import standard_specs
from click.testing import CliRunner
from pydicom.uid import JPEGLossless
from tiny_networks import write_bundles

import pipeline
from pipeline import diagnosis
from pipeline.cli import main
from pipeline.diagnosis import Plan, Verdict, examine
from pipeline.errors import DeviceError
from pipeline.io import decoders, frames
from pipeline.runtime import providers

ROOT = Path(__file__).parents[2]
Disk = namedtuple("Disk", "total used free")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_bundles(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def plan(weights, tmp_path):
    return Plan(weights, "W", tmp_path / "out/results")


def told(plan, check, topic):
    """The finding on a topic; one check alone is quick."""
    found = diagnosis._guarded(topic, check, plan)
    return [f for f in (diagnosis._without_home(f, plan) for f in found) if f.topic == topic]


def test_all_is_well_and_ends_with_0(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(decoders, "_why_no_gdcm", lambda: "")
    result = CliRunner().invoke(
        main, ["doctor", "--weights", str(weights), "--output", str(tmp_path / "r"), "--json"]
    )
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["verdict"] in ("ok", "warning")
    topics = [finding["topic"] for finding in content["findings"]]
    assert {"versions", "packages", "onnxruntime", "cpu", "cuda", "weights", "output"} <= {*topics}
    assert not (tmp_path / "r").exists()


def test_a_fault_ends_with_3_and_advice(tmp_path):
    words = ["doctor", "--weights", str(tmp_path / "none"), "--output", str(tmp_path)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 3, result.output
    assert "fault" in result.stdout
    assert "→ pass one with --weights" in " ".join(result.stdout.split())
    assert "`fxpipe run` cannot start here" in result.stdout


def test_altered_weights_are_a_fault(plan, tmp_path):
    copy = shutil.copytree(plan.weights, tmp_path / "copy")
    (copy / "trunk-fp32.onnx").write_bytes(b"x")
    (found,) = told(Plan(copy, "W", tmp_path), diagnosis._weights, "weights")
    assert found.verdict is Verdict.FAULT
    assert found.found.startswith("W/trunk-fp32.onnx: found 1 bytes")
    assert str(tmp_path) not in found.found


def test_strange_files_and_a_missing_specialist_are_warnings(tmp_path):
    folder = write_bundles(tmp_path / "w", standard_specs()[:-1])
    (folder / "old.onnx").write_bytes(b"x")
    ok, *others = told(Plan(folder, "W", tmp_path), diagnosis._weights, "weights")
    assert ok.verdict is Verdict.OK
    assert {f.verdict for f in others} == {Verdict.WARNING}
    assert "no specialist for shoulder" in others[0].found
    assert "old.onnx" in others[1].found


def test_two_variants_of_onnxruntime(plan, monkeypatch):
    there = {"onnxruntime": "1.25", "onnxruntime-gpu": "1.25"}
    monkeypatch.setattr(pipeline, "version_of", there.get)
    (found,) = told(plan, diagnosis._runtimes, "onnxruntime")
    assert found.verdict is Verdict.WARNING
    assert found.advice == (
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    )


def test_a_runtime_that_cannot_be_loaded_is_a_fault(plan, monkeypatch):
    real = builtins.__import__

    def fail(name, *words):
        if name == "onnxruntime":
            raise ImportError("DLL load failed")
        return real(name, *words)

    monkeypatch.setattr(builtins, "__import__", fail)
    (found,) = told(plan, diagnosis._runtimes, "onnxruntime")
    assert (found.verdict, found.found) == (Verdict.FAULT, "cannot be loaded: DLL load failed")
    assert "install again" in found.advice


@pytest.mark.parametrize(
    ("fails", "gpu", "verdicts"),
    [
        ((), True, ["ok", "ok", "ok"]),
        (("cuda", "tensorrt"), False, ["ok", "ok", "ok"]),
        (("cuda", "tensorrt"), True, ["ok", "warning", "ok"]),
        (("cpu",), False, ["fault", "ok", "ok"]),
    ],
)
def test_devices(plan, monkeypatch, fails, gpu, verdicts):
    def resolve(device):
        if device in fails:
            raise DeviceError(f"{device}: the driver is too old", "install another")
        return device

    monkeypatch.setattr(providers, "resolve_device", resolve)
    monkeypatch.setattr(providers, "gpu_seems_present", lambda: gpu)
    found = list(diagnosis._devices(plan))
    assert [f.verdict for f in found] == verdicts
    assert [f.topic for f in found] == ["cpu", "cuda", "tensorrt"]
    for finding in found:
        assert ("too old" in finding.found) is (finding.topic in fails)
        assert bool(finding.advice) is (finding.verdict is not Verdict.OK)


@pytest.mark.parametrize(
    ("free", "verdict"), [(5 << 30, "ok"), (500 << 20, "warning"), (1 << 20, "fault")]
)
def test_room_for_results(plan, monkeypatch, free, verdict):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(0, 0, free))
    (found,) = told(plan, diagnosis._output, "output")
    assert found.verdict == verdict
    assert bool(found.advice) is (verdict != "ok")


def test_an_output_that_cannot_be_written(plan, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert told(plan, diagnosis._output, "output")[0].verdict is Verdict.FAULT
    monkeypatch.undo()
    (tmp_path / "file").write_text("x")
    through = Plan(plan.weights, "W", tmp_path / "file/results")
    assert told(through, diagnosis._output, "output")[0].verdict is Verdict.FAULT


@pytest.mark.parametrize(("free", "verdict"), [(8 << 30, "ok"), (100 << 20, "warning")])
def test_memory(plan, monkeypatch, free, verdict):
    monkeypatch.setattr(diagnosis, "free_memory", lambda: free)
    (found,) = told(plan, diagnosis._memory, "memory")
    assert found.verdict == verdict


def test_a_decoder_that_is_missing_is_named(plan, monkeypatch):
    monkeypatch.setattr(decoders, "_why_no_gdcm", lambda: "python-gdcm is broken")
    ok, lost = told(plan, diagnosis._decoders, "DICOM")
    assert (ok.verdict, lost.verdict) == (Verdict.OK, Verdict.WARNING)
    assert "RLE Lossless" in ok.found
    assert "JPEG-LS" not in ok.found
    assert "JPEG-LS" in lost.found
    assert "python-gdcm is broken" in lost.found


def test_gdcm_is_really_asked(monkeypatch):
    assert decoders._why_no_gdcm.__wrapped__() == ""
    monkeypatch.setattr(decoders, "_WORKER", Path("no_such_worker.py"))
    assert "does not work" in decoders._why_no_gdcm.__wrapped__()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert frames.why_unreadable(JPEGLossless) == "python-gdcm is not installed"


def test_missing_packages(plan, monkeypatch):
    monkeypatch.setattr(pipeline, "version_of", lambda name: None if name == "numpy" else "1")
    (found,) = told(plan, diagnosis._versions, "packages")
    assert (found.verdict, found.advice) == (Verdict.FAULT, "pip install numpy")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    extras = list(diagnosis._extras(plan))
    assert {f.verdict for f in extras} == {Verdict.OK}
    assert all("optional" in f.advice for f in extras)


def test_what_cannot_be_told_is_a_warning(plan):
    def fail(_):
        raise PermissionError(13, "Permission denied")
        yield

    (found,) = diagnosis._guarded("x", fail, plan)
    assert found.verdict is Verdict.WARNING


def test_nobodys_home_is_named(plan, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/users/alice"))
    finding = diagnosis.Finding("x", Verdict.OK, f"in /users/alice/lib and {plan.weights}/a", "")
    assert diagnosis._without_home(finding, plan).found == "in ~/lib and W/a"


def test_it_never_loads_torch(weights, tmp_path):
    code = (
        "import sys; from pipeline.cli import main\n"
        f"try: main(['doctor', '--weights', {str(weights)!r}, '--output', {str(tmp_path)!r}])\n"
        "except SystemExit as leave: assert leave.code == 0, leave.code\n"
        "names = {'torch', 'timm', 'sklearn', 'lightning', 'onnx', 'stages.network.model'}\n"
        "assert not names & set(sys.modules), names & set(sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr


def test_examine_keeps_its_order(plan, monkeypatch):
    for name in ("_weights", "_decoders", "_devices"):
        monkeypatch.setattr(diagnosis, name, lambda _: iter(()))
    topics = [finding.topic for finding in examine(plan)]
    assert topics[:3] == ["versions", "packages", "onnxruntime"]
    assert topics[3:6] == ["output", "memory", "cores"]


def test_every_extra_of_the_project_is_looked_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {*diagnosis._EXTRAS, "dev"} == set(project["optional-dependencies"])
