"""Saving and resuming a run: safetensors with JSON beside the tensors, replaced in one step."""

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
"""Describes the network of a run, beside its weights."""


def save(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors and JSON state as one file; a crash leaves the old file or the new one."""
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with replacing(path) as partial:
        save_file(plain, partial, {_JSON_KEY: json.dumps(state)})


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save` wrote.

    Raises:
        ConfigError: The file is missing or is no checkpoint of fxpipe's.
    """
    try:
        with safe_open(path, "pt") as handle:
            state = json.loads((handle.metadata() or {})[_JSON_KEY])
            return {name: handle.get_tensor(name) for name in handle.keys()}, state  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: not a readable checkpoint: {error}") from error


def fill(network: nn.Module, weights: Mapping[str, Tensor], source: Path) -> None:
    """Put weights into a network that are all of its weights.

    Args:
        network: Changed in place.
        weights: By name.
        source: Where they come from, for the message.

    Raises:
        ConfigError: Some are missing, of another network, of another shape, or no numbers.
    """
    wanted = network.state_dict()
    faults = [f"{name} is missing" for name in wanted if name not in weights]
    faults += [f"{name} is no weight of this network" for name in weights if name not in wanted]
    faults += [
        f"{name} is {_shape(weights[name])}, wanted {_shape(value)}"
        for name, value in wanted.items()
        if name in weights and weights[name].shape != value.shape
    ]
    faults += [f"{name} holds NaN or infinity" for name in not_numbers(weights)]
    if faults:
        told = "".join(f"\n  - {fault}" for fault in shortened(faults))
        raise ConfigError(
            f"{source}: found broken weights, wanted those of the network in {CONFIG}:{told}",
            "train again; where weights are no numbers, with a lower optim.lr",
        )
    network.load_state_dict(weights)


def not_numbers(weights: Mapping[str, Tensor]) -> list[str]:
    """Names of the weights in which NaN or infinity stands."""
    return [name for name, value in weights.items() if not torch.isfinite(value).all()]


def _shape(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "one number"


def pack(
    model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Everything that training changes, as flat tensors and JSON."""
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
    """Put back what :func:`pack` took."""
    model.load_state_dict(_under(tensors, "model/"))
    average.load_state_dict(_under(tensors, "average/"))
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in _under(tensors, "optimizer/").items():
        index, name = key.split("/")
        slots.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": slots, "param_groups": state["param_groups"]})


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
