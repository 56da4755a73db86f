"""Restoring of runs from the float precision of a weights folder, for a new export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from pipeline.bundle import BundleSpec, Kind, RegionSpec, read_contract
from pipeline.weights.manifest import ManifestEntry, read_staged, read_verified

from ..network.density import FittedDensity, density_in
from ..stage_spec import fracture_stage, region_stage, types_of
from ..training.finished_run import Run
from ..training.initial_weights import FLOAT, shipped_network


def load_again(weights: Path) -> list[Run]:
    """Restore the networks of a weights folder from their float precision.

    Args:
        weights: Folder with a manifest.

    Returns:
        A run for each stage, with the contracts of its bundles.

    Raises:
        ConfigError: A stage has no float precision, or is an ensemble.
        BundleError: A file is missing or altered, or all stages are one fused graph.
    """
    entries = read_staged(weights).bundles
    names = dict.fromkeys(entry.name for entry in entries if entry.kind is not Kind.TRUNK)
    trunks = {entry.trunk: entry for entry in entries if entry.kind is Kind.TRUNK}
    return [_load(weights, name, trunks) for name in names]


def _load(weights: Path, name: str, trunks: dict[str | None, ManifestEntry]) -> Run:
    network, spec = shipped_network(weights, name)
    contracts: dict[str, BundleSpec] = {name: spec}
    cut = network.blocks[0]
    if spec.trunk is not None:
        entry = trunks[spec.trunk]
        graph = onnx.load_from_string(read_verified(weights, entry))
        metadata = {prop.key: prop.value for prop in graph.metadata_props}
        contracts[entry.name] = read_contract(metadata, entry.file)
        # layer4.1.conv2.weight belongs to the block layer4.1
        trunk_blocks = {".".join(i.name.split(".")[:2]) for i in graph.graph.initializer}
        cut = next(block for block in network.blocks[1:] if block not in trunk_blocks)
    result: dict[str, Any] = {"temperature": list(spec.temperature), "bias": list(spec.bias)}
    density = None
    if isinstance(spec, RegionSpec):
        stage = region_stage(None)
        density = _density(weights, spec)
    else:
        contract = spec.model_dump(mode="json")
        result |= {"closer": contract["closer"], "types": contract["types"]}
        stage = fracture_stage(spec.region, spec.target, types_of(contract["types"]))
    return Run(weights, stage, network, {"cut": cut}, result, spec.preprocess, density, contracts)


def _density(weights: Path, spec: RegionSpec) -> FittedDensity | None:
    """The density gate of a router; None without a gate."""
    if spec.density is None:
        return None
    entry = next(e for p in FLOAT for e in read_staged(weights).of(p) if e.name == spec.name)
    graph = onnx.load_from_string(read_verified(weights, entry))
    return density_in(graph, spec.density)
