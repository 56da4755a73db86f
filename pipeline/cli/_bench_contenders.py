"""Entry points of the processes of ``fxpipe bench``; each imports only what it needs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .. import logging_setup
from ._extras import needs

if TYPE_CHECKING:
    from ..bench.rounds import Contender
    from ..config import Device, RunConfig

Form = Literal["safetensors", "onnx"]


def open_fxpipe(weights: Path, config: RunConfig, root: Path) -> Contender:
    """The contender fxpipe; see :class:`pipeline.bench.fxpipe_contender.FxpipeContender`."""
    from ..bench.fxpipe_contender import FxpipeContender

    logging_setup.configure()
    return FxpipeContender(weights, config, root)


def open_torch_loop(folder: Path, device: Device) -> Contender:
    """See :func:`stages.export.two_pass_torch.torch_loop`."""
    with needs("train"):
        from stages.export.two_pass_torch import torch_loop
    return torch_loop(folder, device)


def open_torch_batched(folder: Path, device: Device, batch_size: int) -> Contender:
    """See :func:`stages.export.two_pass_torch.torch_batched`."""
    with needs("train"):
        from stages.export.two_pass_torch import torch_batched
    return torch_batched(folder, device, batch_size)


def open_onnx(folder: Path, device: Device) -> Contender:
    """See :func:`pipeline.bench.onnx_loop.onnx_loop`."""
    from ..bench.onnx_loop import onnx_loop

    return onnx_loop(folder, device)


def export_whole_networks(weights: Path, folder: Path, forms: Collection[Form]) -> None:
    """See :func:`stages.export.two_pass_export.write_whole`."""
    with needs("train"):
        from stages.export.two_pass_export import write_whole
    write_whole(weights, folder, forms)
