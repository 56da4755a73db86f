"""Benchmark baseline: two complete float networks in torch, without fxpipe's optimisations.

This module imports only what such a program needs, so that its memory use is comparable.
"""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.bench.two_pass import Naive, Predict, Whole
from pipeline.domain import Array
from pipeline.errors import DeviceError

from ..network import checkpoint
from ..network.model import Network, StrideOn


def torch_loop(folder: Path, device: str) -> Naive:
    """Two passes in float32, picture by picture.

    Args:
        folder: With ``two-pass.json`` and a safetensors file of each network: see
            :func:`stages.export.two_pass_export.write_whole`.
        device: ``cpu`` or ``cuda``.

    Raises:
        DeviceError: torch cannot use the device.
    """
    return _opened(folder, device, 1, torch.contiguous_format)


def torch_batched(folder: Path, device: str, batch_size: int) -> Naive:
    """As :func:`torch_loop`, in batches and with channels-last memory format."""
    return _opened(folder, device, batch_size, torch.channels_last)


def _opened(
    folder: Path, device: str, batch_size: int, layout: torch.memory_format
) -> Naive:  # fmt: skip
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"torch {torch.__version__} finds no CUDA device")

    def open_stage(stage: Whole) -> Predict:
        network = read_whole(folder, stage).to(device).to(memory_format=layout)

        @torch.inference_mode()
        def forward(images: Array) -> Array:
            inputs = torch.from_numpy(images).to(device, memory_format=layout)
            logits: Array = network(inputs).numpy(force=True)
            return logits

        return forward

    facts = {"device": device, "torch": torch.__version__, "threads": torch.get_num_threads()}
    return Naive(folder, open_stage, batch_size, facts)


def read_whole(folder: Path, stage: Whole) -> Network:
    """A network from :func:`stages.export.two_pass_export.write_whole`, in evaluation mode."""
    stride_on: StrideOn = "conv1" if stage.stride_on == "conv1" else "conv2"
    canvas_px = stage.preprocess.height_px, stage.preprocess.width_px
    network = Network(stage.labels, stride_on, "stem", arch=stage.arch, canvas_px=canvas_px)
    network.load_state_dict(checkpoint.load(folder / f"{stage.name}.safetensors")[0])
    return network.eval()
