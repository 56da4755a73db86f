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

from pipeline.errors import ConfigError

_JSON_KEY = "fxpipe"


def save(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors and JSON state as one file; a crash leaves the old file or the new one."""
    partial = path.with_name(path.name + ".partial")
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    save_file(plain, partial, {_JSON_KEY: json.dumps(state)})
    partial.replace(path)


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
