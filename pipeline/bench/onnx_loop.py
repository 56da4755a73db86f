"""Two passes in ONNX Runtime, float32, picture by picture, with its own default options."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from ..config import Device
from ..domain import Array
from ..runtime.providers import resolve_device
from .two_pass import Ask, Naive, Whole

_PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
}


def onnx_loop(folder: Path, device: Device) -> Naive:
    """Open the networks.

    Args:
        folder: With ``two-pass.json`` and an ONNX file of each network.
        device: ``cpu`` or ``cuda``.

    Raises:
        DeviceError: ONNX Runtime cannot use the device.
    """
    resolve_device(device)  # which also loads the libraries of a GPU

    def opened(stage: Whole) -> Ask:
        file = folder / f"{stage.name}.onnx"
        session = onnxruntime.InferenceSession(file, providers=_PROVIDERS[device])

        def ask(images: Array) -> Array:
            logits: Array = session.run(["logits"], {"image": images})[0]
            return logits

        return ask

    return Naive(folder, opened, 1, {"device": device, "threads": "as ONNX Runtime chooses"})
