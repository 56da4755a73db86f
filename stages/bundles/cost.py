"""Cost of a weights folder: parameters and multiply-adds of its graphs, and its speed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx

from pipeline.bundle import Kind, Precision, read_contract
from pipeline.config import RunConfig
from pipeline.engine import run
from pipeline.runtime.session import load_bundles
from pipeline.weights.manifest import ManifestEntry, read_manifest, read_verified

from .reader import members_of


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a whole system.

    Attributes:
        parameters: Parameters of all networks, each network counted once.
        multiply_adds: Multiply-adds of convolutions and matrix products for one picture that is
            routed to one specialist (mean over the specialists).
        size_bytes: Size of the files of one precision.
    """

    parameters: int
    multiply_adds: float
    size_bytes: int


def count(weights: Path) -> Cost:
    """Cost of a weights folder, of its float form if there is one.

    Raises:
        BundleError: A file is missing or altered.
    """
    manifest = read_manifest(weights)
    precision = next(
        p for p in (Precision.FP32, Precision.FP16, Precision.INT8) if p in manifest.precisions
    )
    entries = {entry.name: entry for entry in manifest.of(precision)}
    graphs = {n: onnx.load_from_string(read_verified(weights, e)) for n, e in entries.items()}
    sums = {name: sum(_multiply_adds(graph)) for name, graph in graphs.items()}
    routers = [name for name, entry in entries.items() if entry.kind is Kind.REGION]
    specialists = _specialists(entries, graphs)
    parts = [{*_with_trunks([*routers, *names], entries)} for names in specialists.values()]
    parts = parts or [{*entries}]  # a fused graph always runs all networks
    return Cost(
        parameters=sum(
            sum(prod(tensor.dims) for tensor in graph.graph.initializer)
            for graph in graphs.values()
        ),
        multiply_adds=float(np.mean([sum(sums[name] for name in part) for part in parts])),
        size_bytes=sum(entry.size_bytes for entry in entries.values()),
    )


def _specialists(
    entries: Mapping[str, ManifestEntry], graphs: Mapping[str, onnx.ModelProto]
) -> dict[str, list[str]]:
    """Each specialist with its networks: itself, and the members of an ensemble."""
    contracts = {
        name: read_contract({p.key: p.value for p in graph.metadata_props}, name)
        for name, graph in graphs.items()
        if entries[name].kind.judges
    }
    members = {name: members_of(spec) for name, spec in contracts.items()}
    claimed = {name for names in members.values() for name in names}
    return {name: [name, *names] for name, names in members.items() if name not in claimed}


def _with_trunks(names: Sequence[str], entries: Mapping[str, ManifestEntry]) -> Iterator[str]:
    """Networks, and their trunks."""
    trunks = {entries[name].trunk for name in names}
    yield from names
    for name, entry in entries.items():
        if entry.kind is Kind.TRUNK and entry.trunk in trunks:
            yield name


def _multiply_adds(model: onnx.ModelProto) -> Iterator[int]:
    """Multiply-adds of each convolution and matrix product, for a batch of one."""
    inferred = onnx.shape_inference.infer_shapes(_batch_of_one(model), data_prop=True).graph
    known = (*inferred.value_info, *inferred.output, *inferred.input)
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in known
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    for node in inferred.node:
        if node.op_type == "Conv":
            yield prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
        elif node.op_type == "Gemm":  # of pooled features: one row
            yield prod(shapes[node.input[1]])
        elif node.op_type == "MatMul":
            yield prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _batch_of_one(model: onnx.ModelProto) -> onnx.ModelProto:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]  # its types predate the conversion to half precision
    for value in fixed.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return fixed


def speed(weights: Path, paths: Sequence[Path], config: RunConfig) -> float:
    """Pictures per second from files to outcomes, after a warm-up.

    Args:
        weights: Folder.
        paths: Pictures, at least one.
        config: Device, precision and threads.
    """
    networks = load_bundles(weights, config)
    for _ in run(paths[: config.batch_size], networks, config):
        pass
    started = time.perf_counter()
    done = sum(1 for _ in run(paths, networks, config))
    return done / (time.perf_counter() - started)
