"""Devices: a named device is not replaced by another one; ``auto`` may use the CPU."""

from __future__ import annotations

import logging
from pathlib import Path

import onnx
import onnxruntime
import pytest
from bundles import spec
from onnx import TensorProto, helper
from tiny_networks import network

from pipeline.bundle import Kind
from pipeline.errors import BundleError, DeviceError
from pipeline.runtime import providers
from pipeline.runtime.providers import open_session, resolve_device

no_gpu = pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU")


def test_session_on_cpu():
    session, device = open_session(network(spec("trunk", Kind.TRUNK)), "cpu", 1, "trunk")
    assert device == "cpu"
    assert session.get_providers() == ["CPUExecutionProvider"]


@no_gpu
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_missing_gpu_is_an_error_without_output(device, capfd):
    with pytest.raises(DeviceError, match=f"device '{device}' was requested") as caught:
        open_session(network(spec("trunk", Kind.TRUNK)), device, 1, "trunk")
    assert "--device cpu" in caught.value.hint
    assert capfd.readouterr() == ("", "")


@no_gpu
def test_auto_uses_the_cpu_without_a_warning_if_there_is_no_gpu(caplog, capfd):
    assert resolve_device("auto") == "cpu"
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


@no_gpu
def test_auto_logs_why_a_gpu_is_not_used(caplog, monkeypatch):
    compiled_in = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: compiled_in)
    monkeypatch.setattr(providers, "gpu_seems_present", lambda: True)
    with caplog.at_level(logging.WARNING):
        assert resolve_device("auto") == "cpu"
    assert "using the CPU although this machine seems to have a GPU" in caplog.text


def test_error_lists_the_providers_of_the_runtime(monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DeviceError, match="has only CPUExecutionProvider"):
        resolve_device("cuda")


def test_session_on_another_device_is_refused(monkeypatch):
    """ONNX Runtime opens a session on the CPU, without an error, when CUDA fails."""

    class OnCpu:
        def __init__(self, *_: object, **__: object) -> None: ...

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    compiled_in = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: compiled_in)
    monkeypatch.setattr(onnxruntime, "InferenceSession", OnCpu)
    with pytest.raises(DeviceError, match="it would run on CPUExecutionProvider"):
        resolve_device("cuda")


def test_invalid_network_is_a_bundle_error():
    with pytest.raises(BundleError, match=r"x\.onnx: cannot run this network"):
        open_session(b"junk", "cpu", 1, "x.onnx")


def test_external_data_is_not_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.bin").write_bytes(b"\0" * 4)
    outside = onnx.TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL
    )
    for key, value in (("location", "w.bin"), ("offset", "0"), ("length", "4")):
        outside.external_data.add(key=key, value=value)
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 1]) for n in "xy"]
    node = helper.make_node("Add", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", ports[:1], ports[1:], [outside])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(BundleError, match=r"[Ee]xternal data"):
        open_session(model.SerializeToString(), "cpu", 1, "outside.onnx")
