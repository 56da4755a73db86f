"""Selection and verification of the device that runs the networks.

ONNX Runtime falls back to the CPU if a GPU cannot be opened, and reports that only in its own
log. fxpipe compares the device that a session uses with the requested one and fails if they differ.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _native

from ..config import Device
from ..errors import BundleError, DeviceError

log = logging.getLogger(__name__)

_ERROR_NAMES = (
    *("EPFail", "EngineError", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf"),
    *("NoSuchFile", "NotFound", "NotImplemented", "RuntimeException"),
)

# NotFound is younger than the oldest version that is supported.
RUNTIME_ERRORS: tuple[type[Exception], ...] = tuple(
    getattr(_native, name) for name in _ERROR_NAMES if hasattr(_native, name)
)
"""Errors of ONNX Runtime; these classes have no common base class."""

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"

# TF32 would make fp32 results depend on the batch in the third decimal. An exhaustive search
# for convolution algorithms would be repeated for every batch size of a head.
_CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}

_PROVIDERS: dict[str, list[tuple[str, dict[str, str]]]] = {
    "cpu": [(_CPU, {})],
    "cuda": [(_CUDA, _CUDA_OPTIONS), (_CPU, {})],
    "tensorrt": [(_TENSORRT, {}), (_CUDA, _CUDA_OPTIONS), (_CPU, {})],
}

_FATAL_ONLY = 4  # severity of ONNX Runtime; errors are raised as exceptions anyway

# y = Relu(x), x float32 (N, 1): a minimal graph to test a device with.
_PROBE_GRAPH = (
    b'\x08\t\x12\x06fxpipe:=\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01g'
    b"Z\x14\n\x01x\x12\x0f\n\r\x08\x01\x12\t\n\x03\x12\x01N\n\x02\x08\x01"
    b"b\x14\n\x01y\x12\x0f\n\r\x08\x01\x12\t\n\x03\x12\x01N\n\x02\x08\x01"
)
_PROBE_OPSET = 17


def resolve_device(device: Device) -> Device:
    """Find the device to run on: ``cpu``, ``cuda`` or ``tensorrt``.

    Opens and runs a one-node graph on the device: a provider that is compiled in may still lack
    drivers, libraries or hardware.

    Args:
        device: ``auto`` selects CUDA if it works, else the CPU, with a warning if the machine
            seems to have a GPU. Any other device must work.

    Raises:
        DeviceError: The requested device does not work.
    """
    if device != "auto":
        _probe(device)
        return device
    try:
        _probe("cuda")
    except DeviceError as error:
        if _CUDA in onnxruntime.get_available_providers() and gpu_seems_present():
            log.warning("using the CPU although this machine seems to have a GPU: %s", error)
        return "cpu"
    return "cuda"


def open_session(
    content: bytes, device: Device, intra_op_threads: int, source: str
) -> tuple[Any, Device]:
    """Open a network and verify that it runs on the requested device.

    Args:
        content: The ONNX file. It is opened from memory and external data is refused, so only
            these verified bytes are read.
        device: See :func:`resolve_device`.
        intra_op_threads: Threads inside the network on the CPU; 0 for one per core.
        source: Name for messages.

    Returns:
        The ``onnxruntime.InferenceSession`` and its device.

    Raises:
        BundleError: This ONNX Runtime cannot run the network.
        DeviceError: The session would run on another device.
    """
    chosen = resolve_device(device) if device == "auto" else device
    return _open(content, chosen, intra_op_threads, source), chosen


def check_opset(opset: int, source: str) -> None:
    """Refuse a network whose opset is newer than this ONNX Runtime supports.

    Opens a one-node graph with the same opset, because ONNX Runtime does not list the opsets that
    a build supports.

    Raises:
        BundleError: The opset is too new.
    """
    if _supports(opset):
        return
    newest = next((n for n in range(min(opset, 64) - 1, _PROBE_OPSET, -1) if _supports(n)), 0)
    raise BundleError(
        f"{source}: found opset {opset}, expected {newest or _PROBE_OPSET} or less: ONNX Runtime "
        f"{onnxruntime.__version__} supports no newer one",
        "install a newer onnxruntime, or export the network again with this one",
    )


@functools.cache
def _supports(opset: int) -> bool:
    if opset <= _PROBE_OPSET:
        return True
    try:
        _open(_probe_graph(opset), "cpu", 1, "probe")
    except BundleError:
        return False
    return True


def _probe_graph(opset: int) -> bytes:
    """The probe graph with its opset appended as a protobuf varint."""
    version = b""
    while opset > 0x7F:
        version += bytes([opset & 0x7F | 0x80])
        opset >>= 7
    version += bytes([opset])
    stamp = b"\n\x00\x10" + version
    return _PROBE_GRAPH + b"B" + bytes([len(stamp)]) + stamp


def _probe(device: Device) -> None:
    session = _open(_probe_graph(_PROBE_OPSET), device, 1, "probe")
    try:
        session.run(None, {"x": np.ones((1, 1), np.float32)})
    except RUNTIME_ERRORS as error:
        raise _device_error(device, f"the network opens, but does not run: {error}") from error


def _open(content: bytes, device: Device, intra_op_threads: int, source: str) -> Any:
    expected = _PROVIDERS[device][0][0]
    compiled_in = onnxruntime.get_available_providers()
    if expected not in compiled_in:
        raise _device_error(device, f"this ONNX Runtime has only {', '.join(compiled_in)}")
    load_error = _load_gpu_libraries() if device != "cpu" else ""
    try:
        session = onnxruntime.InferenceSession(
            content,
            _options(intra_op_threads),
            providers=[p for p in _PROVIDERS[device] if p[0] in compiled_in],
            # The built-in fallback prints to stdout and hides the reason.
            enable_fallback=0,
        )
    except RUNTIME_ERRORS as error:
        if device == "cpu":
            raise BundleError(f"{source}: cannot run this network: {error}") from error
        _open(content, "cpu", 1, source)  # raises BundleError if the network itself is at fault
        raise _device_error(device, str(error)) from error
    except (RuntimeError, ValueError) as error:  # a provider that refuses its options
        raise _device_error(device, str(error)) from error
    actual = session.get_providers()[0]
    if actual != expected:
        raise _device_error(device, load_error or _why_no_gpu(), actual)
    return session


def _options(intra_op_threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = intra_op_threads
    # External initializers are searched in a folder that cannot exist, and so refused.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", os.devnull + "/none"
    )
    # Never the ORT format, which ONNX Runtime would also detect in bytes that are valid ONNX.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


@functools.cache
def _load_gpu_libraries() -> str:
    """Load the CUDA libraries from Python packages; returns the reported errors."""
    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    if not hasattr(onnxruntime, "preload_dlls"):  # a build without CUDA
        return ""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        onnxruntime.preload_dlls()
    lines = [line for line in output.getvalue().splitlines() if line.startswith("Failed")]
    return "; ".join([_why_no_driver(), *lines] if _why_no_driver() else lines)


def _why_no_driver() -> str:
    """Reason why the NVIDIA driver cannot be loaded; empty if it can."""
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return "no NVIDIA driver is installed"
    return ""


def _why_no_gpu() -> str:
    return _why_no_driver() or "the driver or the GPU does not support this ONNX Runtime"


def gpu_seems_present() -> bool:
    """Whether the machine seems to have an NVIDIA GPU, usable or not."""
    return Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None


def _device_error(device: Device, reason: str, actual: str = "") -> DeviceError:
    fallback = f" (it would run on {actual})" if actual else ""
    return DeviceError(
        f"device {device!r} was requested but cannot be used{fallback}: {reason}",
        "run with --device cpu, or install the NVIDIA driver and `onnxruntime-gpu` with the "
        "CUDA version that it requires",
    )
