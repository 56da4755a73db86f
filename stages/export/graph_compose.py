"""Fusion of the ONNX graphs of several bundles into one; does not need torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx
from onnx import TensorProto, compose, helper

from pipeline.bundle import DENSITY, FractureSpec, RegionSpec, TrunkSpec
from pipeline.errors import BundleError
from pipeline.fused_contract import FusedSpec

IMAGE, BATCH = "image", "batch"
Parts = Mapping[str, tuple[TrunkSpec | RegionSpec | FractureSpec, onnx.ModelProto]]
"""Contract and graph of trunks, heads and complete networks, by bundle name."""


def fuse_graphs(parts: Parts, spec: FusedSpec) -> bytes:
    """Fuse the graphs; return the bytes of a bundle.

    Every name gets its bundle's name as a prefix, ``trunk/layer1.0.conv1.weight``; a trunk occurs
    once for all of its heads. The columns of the specialists are concatenated.

    Args:
        parts: The stages of the contract, and their trunks.
        spec: The contract.

    Raises:
        BundleError: The graphs use different operator set versions.
    """
    trunks = {part.trunk: n for n, (part, _) in parts.items() if isinstance(part, TrunkSpec)}
    names = list(trunks.values())
    ordered = [*names, *(name for name in parts if name not in names)]  # trunks before heads
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    for name in ordered:
        part, model = parts[name]
        graph = compose.add_prefix(model, f"{name}/").graph
        source = f"{trunks[part.features_of]}/features" if part.features_of else IMAGE
        _rename(graph.node, {f"{name}/{part.input}": source})
        nodes += graph.node
        weights += graph.initializer
    canvas = spec.preprocess
    shapes: dict[str, list[int]] = {IMAGE: [1, canvas.height_px, canvas.width_px]}
    for output, (group, port) in spec.outputs.items():
        stages = spec.groups[group]
        columns = [f"{stage.name}/{port}" for stage in stages]
        if port == DENSITY:  # one number per picture
            nodes.append(helper.make_node("Identity", columns, [output], name=output))
            shapes[output] = []
            continue
        nodes.append(helper.make_node("Concat", columns, [output], name=output, axis=1))
        cells = grid(parts[stages[0].name][1]) if port == "evidence" else None
        shapes[output] = [len(spec.columns[group]), *(cells or ())]
    image, *outputs = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *shape])
        for name, shape in shapes.items()
    )
    graph = helper.make_graph(nodes, spec.name, [image], outputs, weights)
    return _finished(graph, [model for _, model in parts.values()], spec)


def grid(model: onnx.ModelProto) -> tuple[int, int] | None:
    """Rows and columns of a graph's evidence; None without evidence of a fixed size."""
    for port in model.graph.output:
        if port.name == "evidence":
            rows, columns = (dim.dim_value for dim in port.type.tensor_type.shape.dim[2:])
            return (rows, columns) if rows and columns else None
    return None


def _rename(nodes: Iterable[onnx.NodeProto], names: Mapping[str, str]) -> None:
    """Rename the inputs of nodes."""
    for node in nodes:
        for i, name in enumerate(node.input):
            node.input[i] = names.get(name, name)


def _finished(graph: onnx.GraphProto, models: Sequence[onnx.ModelProto], spec: FusedSpec) -> bytes:
    """The checked model of a graph, with its operator set versions and the contract."""
    used = {node.domain for node in graph.node}
    versions = {
        (opset.domain, opset.version)
        for model in models
        for opset in model.opset_import
        if opset.domain in used
    }
    if len(versions) > len(used):
        listed = ", ".join(f"{domain or 'onnx'} {version}" for domain, version in sorted(versions))
        raise BundleError(
            f"the bundles need different operator set versions ({listed}); they must be equal",
            "export all runs again with one version of fxpipe",
        )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(*version) for version in sorted(versions)],
        ir_version=max(model.ir_version for model in models),
        functions=[function for model in models for function in model.functions],
        producer_name="fxpipe",
    )
    helper.set_model_props(model, spec.to_metadata())
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
