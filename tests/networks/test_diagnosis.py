"""Findings of `fxpipe doctor`, including faults that are simulated."""

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
from pipeline.diagnosis import CHECKS, EXTRAS, Finding, Plan, Verdict, examine
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


def findings(plan, check, topic=None):
    """The findings of one check, on one topic if it is named."""
    return [f for f in examine(plan, {check: CHECKS[check]}) if topic in (None, f.topic)]


def test_exit_code_without_faults_is_0(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(decoders, "why_no_gdcm", lambda: "")
    result = CliRunner().invoke(
        main, ["doctor", "--weights", str(weights), "--output", str(tmp_path / "r"), "--json"]
    )
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["verdict"] in ("ok", "warning")
    topics = [finding["topic"] for finding in content["findings"]]
    assert {"versions", "packages", "onnxruntime", "cpu", "cuda", "weights", "output"} <= {*topics}
    assert not (tmp_path / "r").exists()


def test_exit_code_with_a_fault_is_3(tmp_path):
    arguments = ["doctor", "--weights", str(tmp_path / "none"), "--output", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 3, result.output
    assert "fault" in result.stdout
    assert "→ pass one with --weights" in " ".join(result.stdout.split())
    assert "`fxpipe run` cannot start here" in result.stdout


def test_altered_weights_are_a_fault(plan, tmp_path):
    copy = shutil.copytree(plan.weights, tmp_path / "copy")
    (copy / "trunk-fp32.onnx").write_bytes(b"x")
    (finding,) = findings(Plan(copy, "W", tmp_path), "weights")
    assert finding.verdict is Verdict.FAULT
    assert finding.found.startswith("W/trunk-fp32.onnx: found 1 bytes")
    assert str(tmp_path) not in finding.found


def test_unlisted_files_and_missing_specialist_are_warnings(tmp_path):
    folder = write_bundles(tmp_path / "w", standard_specs()[:-1])
    (folder / "old.onnx").write_bytes(b"x")
    ok, *others = findings(Plan(folder, "W", tmp_path), "weights")
    assert ok.verdict is Verdict.OK
    assert {f.verdict for f in others} == {Verdict.WARNING}
    assert "no specialist for shoulder" in others[0].found
    assert "old.onnx" in others[1].found


def test_two_variants_of_onnxruntime_are_a_warning(plan, monkeypatch):
    installed = {"onnxruntime": "1.25", "onnxruntime-gpu": "1.25"}
    monkeypatch.setattr(pipeline, "version_of", installed.get)
    (finding,) = findings(plan, "onnxruntime")
    assert finding.verdict is Verdict.WARNING
    assert finding.advice == (
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    )


def test_onnxruntime_that_cannot_be_loaded_is_a_fault(plan, monkeypatch):
    real = builtins.__import__

    def fail(name, *arguments):
        if name == "onnxruntime":
            raise ImportError("DLL load failed")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", fail)
    (finding,) = findings(plan, "onnxruntime")
    assert (finding.verdict, finding.found) == (Verdict.FAULT, "cannot be loaded: DLL load failed")
    assert "install again" in finding.advice


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
    actual = findings(plan, "device")
    assert [f.verdict for f in actual] == verdicts
    assert [f.topic for f in actual] == ["cpu", "cuda", "tensorrt"]
    for finding in actual:
        assert ("too old" in finding.found) is (finding.topic in fails)
        assert bool(finding.advice) is (finding.verdict is not Verdict.OK)


@pytest.mark.parametrize(
    ("free", "verdict"), [(5 << 30, "ok"), (500 << 20, "warning"), (1 << 20, "fault")]
)
def test_disk_space(plan, monkeypatch, free, verdict):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(0, 0, free))
    (finding,) = findings(plan, "output")
    assert finding.verdict == verdict
    assert bool(finding.advice) is (verdict != "ok")


def test_output_folder_that_cannot_be_written_is_a_fault(plan, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert findings(plan, "output")[0].verdict is Verdict.FAULT
    monkeypatch.undo()
    (tmp_path / "file").write_text("x")
    below_file = Plan(plan.weights, "W", tmp_path / "file/results")
    assert findings(below_file, "output")[0].verdict is Verdict.FAULT


@pytest.mark.parametrize(("free", "verdict"), [(8 << 30, "ok"), (100 << 20, "warning")])
def test_memory(plan, monkeypatch, free, verdict):
    monkeypatch.setattr(diagnosis, "free_memory", lambda: free)
    (finding,) = findings(plan, "memory")
    assert finding.verdict == verdict


def test_missing_decoder_is_a_warning(plan, monkeypatch):
    monkeypatch.setattr(decoders, "why_no_gdcm", lambda: "python-gdcm is broken")
    ok, lost = findings(plan, "DICOM")
    assert (ok.verdict, lost.verdict) == (Verdict.OK, Verdict.WARNING)
    assert "RLE Lossless" in ok.found
    assert "JPEG-LS" not in ok.found
    assert "JPEG-LS" in lost.found
    assert "python-gdcm is broken" in lost.found


def test_gdcm_decodes_a_sample(monkeypatch):
    assert decoders.why_no_gdcm() == ""
    assert "does not work" in decoders.why_no_gdcm(Path("no_such_worker.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert frames.why_unreadable(JPEGLossless) == "python-gdcm is not installed"


def test_missing_packages(plan, monkeypatch):
    monkeypatch.setattr(pipeline, "version_of", lambda name: None if name == "numpy" else "1")
    (finding,) = findings(plan, "versions", "packages")
    assert (finding.verdict, finding.advice) == (Verdict.FAULT, "pip install numpy")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    extras = findings(plan, "extras")
    assert {f.verdict for f in extras} == {Verdict.OK}
    assert all("optional" in f.advice for f in extras)


def test_check_that_fails_is_a_warning(plan):
    def fail(_):
        raise PermissionError(13, "Permission denied")
        yield

    (finding,) = examine(plan, {"x": fail})
    assert finding.verdict is Verdict.WARNING


def test_home_folder_is_not_printed(plan, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/users/alice"))
    text = f"in /users/alice/lib and {plan.weights}/a"
    (finding,) = examine(plan, {"x": lambda _: iter([Finding("x", Verdict.OK, text, text)])})
    assert (finding.found, finding.advice) == ("in ~/lib and W/a",) * 2


def test_doctor_does_not_load_torch(weights, tmp_path):
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


def test_order_of_the_checks(plan):
    assert list(CHECKS) == [
        *("versions", "onnxruntime", "device", "weights", "output", "memory", "cores"),
        *("DICOM", "extras", "service"),
    ]
    names = ("versions", "onnxruntime", "output", "memory", "cores")
    topics = [finding.topic for finding in examine(plan, {name: CHECKS[name] for name in names})]
    assert topics == ["versions", "packages", "onnxruntime", "output", "memory", "cores"]


def test_every_extra_of_the_package_is_checked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {*EXTRAS, "dev"} == set(project["optional-dependencies"])
