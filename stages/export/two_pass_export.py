"""Export of each stage of a weights folder as one network, assembled from trunk and head."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from pipeline.bench.two_pass import FILE, TwoPass, Whole
from pipeline.bundle import Kind, RegionSpec
from pipeline.errors import ConfigError
from pipeline.weights.manifest import read_staged

from ..network import checkpoint
from ..training.initial_weights import shipped_network
from .exported_head import rows_of
from .onnx_export import to_onnx

Form = Literal["safetensors", "onnx"]


def write_whole(weights: Path, folder: Path, forms: Collection[Form]) -> None:
    """Write the float networks of two passes over a picture: region, then fracture.

    Args:
        weights: Folder with a manifest.
        folder: Gets ``two-pass.json``, and a file per stage and form.
        forms: ``safetensors`` for torch, ``onnx`` for ONNX Runtime.

    Raises:
        ConfigError: The weights folder has no float form, no region stage, or an ensemble.
        BundleError: A file is missing or altered, or all stages are one fused graph.
    """
    bundles = read_staged(weights).bundles
    kinds = {entry.name: entry.kind for entry in bundles if entry.kind is not Kind.TRUNK}
    routers = [name for name, kind in kinds.items() if kind is Kind.REGION]
    if len(routers) != 1:
        raise ConfigError(f"{weights}: {len(routers)} region stages; two passes need exactly one")
    fracture: dict[str, Whole] = {}
    for name in kinds:
        network, contract = shipped_network(weights, name)
        network.fc = rows_of(network.fc, range(len(contract.labels)))  # without fracture types
        stage = Whole(
            name=name,
            labels=contract.labels,
            temperature=contract.temperature,
            bias=contract.bias,
            preprocess=contract.preprocess,
            arch=network.arch,
            stride_on=network.stride_on,
        )
        if "safetensors" in forms:
            checkpoint.save(folder / f"{name}.safetensors", network.state_dict(), {})
        if "onnx" in forms:
            spec = contract.preprocess
            example = np.zeros((1, 1, spec.height_px, spec.width_px), np.float32)
            onnx.save(to_onnx(network, example, "image", ["logits"]), folder / f"{name}.onnx")
        if isinstance(contract, RegionSpec):
            router = stage
        else:
            fracture[contract.region] = stage
    passes = TwoPass(region=router, fracture=fracture)
    (folder / FILE).write_text(passes.model_dump_json(), encoding="utf-8")
