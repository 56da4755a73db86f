"""Two passes with ONNX Runtime in float32, picture by picture, with default options."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from ..config import Device
from ..domain import Array
from ..runtime.providers import resolve_device
from .two_pass import Naive, Predict, Whole

_PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
}


def onnx_loop(folder: Path, device: Device) -> Naive:
    """Open the networks.

    Args:
        folder: Folder with ``two-pass.json`` and an ONNX file for each network.
        device: ``cpu`` or ``cuda``.

    Raises:
        DeviceError: ONNX Runtime cannot use the device.
    """
    resolve_device(device)  # also loads the GPU libraries

    def open_network(stage: Whole) -> Predict:
        file = folder / f"{stage.name}.onnx"
        session = onnxruntime.InferenceSession(file, providers=_PROVIDERS[device])

        def predict(images: Array) -> Array:
            logits: Array = session.run(["logits"], {"image": images})[0]
            return logits

        return predict

    return Naive(folder, open_network, 1, {"device": device, "threads": "as ONNX Runtime chooses"})
