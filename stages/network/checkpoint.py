"""Checkpoints of a run: tensors and JSON state in one safetensors file, replaced atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.atomic import replacing
from pipeline.errors import ConfigError, shortened

_JSON_KEY = "fxpipe"
CONFIG = "config.json"
"""File in a run folder that describes the network."""


def save(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors and JSON state to one file; a crash leaves the old or the new file intact."""
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with replacing(path) as partial:
        save_file(plain, partial, {_JSON_KEY: json.dumps(state)})


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file from :func:`save`.

    Raises:
        ConfigError: The file is missing or not an fxpipe checkpoint.
    """
    try:
        with safe_open(path, "pt") as handle:
            state = json.loads((handle.metadata() or {})[_JSON_KEY])
            return {name: handle.get_tensor(name) for name in handle.keys()}, state  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: cannot read the checkpoint: {error}") from error


def fill(network: nn.Module, weights: Mapping[str, Tensor], source: Path) -> None:
    """Load a complete set of weights into a network.

    Args:
        network: Changed in place.
        weights: Weights by name.
        source: Their file, for the message.

    Raises:
        ConfigError: Weights are missing, unknown, of the wrong shape, or not finite.
    """
    expected = network.state_dict()
    faults = [f"{name} is missing" for name in expected if name not in weights]
    faults += [
        f"{name} is not a weight of this network" for name in weights if name not in expected
    ]
    faults += [
        f"{name} has shape {_shape(weights[name])}, expected {_shape(value)}"
        for name, value in expected.items()
        if name in weights and weights[name].shape != value.shape
    ]
    faults += [f"{name} contains NaN or infinity" for name in not_numbers(weights)]
    if faults:
        listed = "".join(f"\n  - {fault}" for fault in shortened(faults))
        raise ConfigError(
            f"{source}: the weights do not match the network in {CONFIG}:{listed}",
            "train again; if weights are not finite, with a lower optim.lr",
        )
    network.load_state_dict(weights)


def not_numbers(weights: Mapping[str, Tensor]) -> list[str]:
    """Names of the weights that contain NaN or infinity."""
    return [name for name, value in weights.items() if not torch.isfinite(value).all()]


def _shape(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "one number"


def pack(
    model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The training state as flat tensors and JSON."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in average.state_dict().items()}
    optim = optimizer.state_dict()
    for index, slots in optim["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in slots.items()}
    return tensors, {"param_groups": optim["param_groups"]}


def unpack(
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    model: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Restore the state from :func:`pack`."""
    model.load_state_dict(_with_prefix(tensors, "model/"))
    average.load_state_dict(_with_prefix(tensors, "average/"))
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in _with_prefix(tensors, "optimizer/").items():
        index, name = key.split("/")
        slots.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": slots, "param_groups": state["param_groups"]})


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
