"""Which device runs the networks: asked for, opened, and then verified.

ONNX Runtime goes on with the CPU when a GPU cannot be opened, and says so only in its own
log. Here a named device is a promise: what a session really uses is compared with it.
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
"""What ONNX Runtime raises; its classes have no base of their own."""

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"

# TF32 would make fp32 results depend on the batch in the third decimal; an exhaustive search
# for convolutions would start anew for every number of rows that a head is given.
_CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}

_PROVIDERS: dict[str, list[tuple[str, dict[str, str]]]] = {
    "cpu": [(_CPU, {})],
    "cuda": [(_CUDA, _CUDA_OPTIONS), (_CPU, {})],
    "tensorrt": [(_TENSORRT, {}), (_CUDA, _CUDA_OPTIONS), (_CPU, {})],
}

_FATAL_ONLY = 4  # ONNX Runtime's severity; faults reach the caller as exceptions all the same

# y = Relu(x), x float32 (N, 1): the smallest question that a device can be asked.
_PROBE_GRAPH = (
    b'\x08\t\x12\x06fxpipe:=\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01g'
    b"Z\x14\n\x01x\x12\x0f\n\r\x08\x01\x12\t\n\x03\x12\x01N\n\x02\x08\x01"
    b"b\x14\n\x01y\x12\x0f\n\r\x08\x01\x12\t\n\x03\x12\x01N\n\x02\x08\x01"
)
_PROBE_OPSET = 17


def resolve_device(device: Device) -> Device:
    """Find the device that will really run: ``cpu``, ``cuda`` or ``tensorrt``.

    A one-node graph is opened and run on the device, because a library that is compiled in
    says nothing about drivers, libraries and cards.

    Args:
        device: ``auto`` takes CUDA when it works and the CPU when not, with a warning when the
            machine seems to have a GPU; any other name is a promise.

    Raises:
        DeviceError: The named device does not work here.
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
    """Open a network and make sure that it runs where it was told to.

    Args:
        content: The ONNX file. Opened from memory, and references to data outside of it are
            refused, so that nothing but these (verified) bytes is read.
        device: See :func:`resolve_device`.
        intra_op_threads: Threads inside the network on the CPU; 0 for one a core.
        source: Name for messages.

    Returns:
        The ``onnxruntime.InferenceSession`` and its device.

    Raises:
        BundleError: The bytes are no network that this ONNX Runtime can run.
        DeviceError: The session would run elsewhere.
    """
    chosen = resolve_device(device) if device == "auto" else device
    return _open(content, chosen, intra_op_threads, source), chosen


def check_opset(opset: int, source: str) -> None:
    """Refuse a network that is younger than this ONNX Runtime.

    A one-node graph with the same opset is opened, as no list says what a build knows.

    Raises:
        BundleError: It is.
    """
    if _knows(opset):
        return
    newest = next((n for n in range(min(opset, 64) - 1, _PROBE_OPSET, -1) if _knows(n)), 0)
    raise BundleError(
        f"{source}: found opset {opset}, wanted {newest or _PROBE_OPSET} or less: ONNX Runtime "
        f"{onnxruntime.__version__}, which is installed, knows no newer one",
        "install a newer onnxruntime, or export the network again with this one",
    )


@functools.cache
def _knows(opset: int) -> bool:
    if opset <= _PROBE_OPSET:
        return True
    try:
        _open(_probe_graph(opset), "cpu", 1, "probe")
    except BundleError:
        return False
    return True


def _probe_graph(opset: int) -> bytes:
    """The probe with its opset behind it, as protobuf writes numbers."""
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
        raise _device_error(device, f"it opens, but does not run: {error}") from error


def _open(content: bytes, device: Device, intra_op_threads: int, source: str) -> Any:
    wanted = _PROVIDERS[device][0][0]
    compiled_in = onnxruntime.get_available_providers()
    if wanted not in compiled_in:
        raise _device_error(device, f"this ONNX Runtime has only {', '.join(compiled_in)}")
    complaint = _load_gpu_libraries() if device != "cpu" else ""
    try:
        session = onnxruntime.InferenceSession(
            content,
            _options(intra_op_threads),
            providers=[p for p in _PROVIDERS[device] if p[0] in compiled_in],
            # Its own fallback prints to stdout and hides the reason.
            enable_fallback=0,
        )
    except RUNTIME_ERRORS as error:
        if device == "cpu":
            raise BundleError(f"{source}: no network that can be run: {error}") from error
        _open(content, "cpu", 1, source)  # what the CPU cannot open either is itself at fault
        raise _device_error(device, str(error)) from error
    except (RuntimeError, ValueError) as error:  # a provider that refuses its own set-up
        raise _device_error(device, str(error)) from error
    found = session.get_providers()[0]
    if found != wanted:
        raise _device_error(device, complaint or _why_no_gpu(), found)
    return session


def _options(intra_op_threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = intra_op_threads
    # An external initializer is looked up here, in a place that cannot exist, and so refused.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", os.devnull + "/none"
    )
    # Never its own format, which it would recognise in bytes that are valid ONNX too.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


@functools.cache
def _load_gpu_libraries() -> str:
    """Load the CUDA libraries that came as Python packages; what it complained about."""
    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    if not hasattr(onnxruntime, "preload_dlls"):  # a build without CUDA
        return ""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        onnxruntime.preload_dlls()
    lines = [line for line in said.getvalue().splitlines() if line.startswith("Failed")]
    return "; ".join([_why_no_driver(), *lines] if _why_no_driver() else lines)


def _why_no_driver() -> str:
    """What is wrong with the NVIDIA driver; empty when it can be loaded."""
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return "no NVIDIA driver is installed"
    return ""


def _why_no_gpu() -> str:
    return _why_no_driver() or "the driver or its card does not suit this ONNX Runtime"


def gpu_seems_present() -> bool:
    """Whether there are signs of an NVIDIA card, usable or not."""
    return Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None


def _device_error(device: Device, reason: str, found: str = "") -> DeviceError:
    got = f" (it would run on {found})" if found else ""
    return DeviceError(
        f"device {device!r} was asked for and cannot be used{got}: {reason}",
        "run with --device cpu, or install the NVIDIA driver and `onnxruntime-gpu` with the "
        "CUDA version that it names",
    )
