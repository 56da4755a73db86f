"""Device, precision and software versions of a run. Lightning Fabric provides the device."""

from __future__ import annotations

import platform
import warnings
from typing import Any

import torch
from lightning.fabric import Fabric

from pipeline import versions_of
from pipeline.errors import ConfigError

from ..settings import TrainConfig


def make_fabric(config: TrainConfig) -> Fabric:
    """Set up the device and precision of the settings.

    Raises:
        ConfigError: The settings require a GPU and there is none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device is cuda, but torch sees no CUDA device")
    precision: Any = config.precision
    if precision == "auto":
        on_gpu = config.device != "cpu" and torch.cuda.is_available()
        native = torch.cuda.is_bf16_supported() if on_gpu else cpu_has_bf16()
        precision = "bf16-mixed" if native else "32-true"
    with warnings.catch_warnings():
        # One process needs no srun, whether Slurm is installed or not.
        warnings.filterwarnings("ignore", message="The `srun` command is available")
        fabric = Fabric(accelerator=config.device, devices=1, precision=precision)
        fabric.launch()
    return fabric


def device_name(fabric: Fabric) -> str:
    """Name of the device of a run."""
    if fabric.device.type == "cuda":
        return str(torch.cuda.get_device_name(fabric.device))
    return f"{fabric.device.type} ({torch.get_num_threads()} threads)"


def cpu_has_bf16() -> bool:
    """Whether the processor supports bfloat16 natively; emulation is slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def versions() -> dict[str, str]:
    """Versions of the software of a run."""
    names = ("fxpipe", "torch", "torchvision", "timm", "lightning", "numpy", "pillow")
    return {"python": platform.python_version(), **versions_of(names)}
