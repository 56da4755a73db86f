"""Tiny ONNX networks for the contracts in ``bundles``, and weights folders that contain them.

The trunk averages each cell of the canvas with one strided convolution. The logit of a head is
``GAIN * (cell - 0.5)``, calibrated as its contract specifies. A complete network with a canvas of
``FINE_PX`` or more has cells of half the size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from bundles import GAIN, GRID, STRANGE_CELL, cell_of, spec, standard_specs
from onnx import TensorProto, helper, numpy_helper

from pipeline.bundle import (
    TYPE_PORTS,
    BundleSpec,
    EnsembleSpec,
    Estimate,
    FractureSpec,
    FractureTypes,
    Kind,
    RegionSpec,
    StoredPoint,
    TrunkSpec,
)
from pipeline.weights.manifest import ManifestEntry, write_manifest

Shape = list[str | int]

FINE_PX = 128
"""Canvas height in px from which a complete network has 8 x 8 cells."""


def ensemble(name: str, members: Sequence[BundleSpec], **changes: object) -> EnsembleSpec:
    """The contract of an ensemble; ``members`` maps each name to the digest of its network."""
    values: dict[str, object] = {
        "preprocess": members[0].preprocess,
        "members": {m.name: hashlib.sha256(network(m)).hexdigest() for m in members},
    }
    made = spec(name, Kind.ENSEMBLE, **values | changes)
    assert isinstance(made, EnsembleSpec)
    return made


def network(contract: BundleSpec) -> bytes:
    """The ONNX file of a contract: a trunk, a head, a complete network, or an ensemble's mean."""
    if isinstance(contract, EnsembleSpec):
        from stages.export.ensemble import mean_graph

        return _stamped(mean_graph(len(contract.members)), contract)
    cells = GRID
    nodes, constants = [], {}
    features = "features"
    if contract.input == "image":
        cells *= 2 if contract.preprocess.height_px >= FINE_PX else 1
        side = contract.preprocess.height_px // cells
        constants["kernel"] = np.full((1, 1, side, side), 1 / side**2, np.float32)
        nodes.append(
            helper.make_node(
                "Conv",
                ["image", "kernel"],
                [features],
                kernel_shape=[side, side],
                strides=[side, side],
            )
        )
        shape: Shape = ["N", 1, contract.preprocess.height_px, contract.preprocess.width_px]
    else:
        shape = ["N", 1, GRID, GRID]
    outputs: list[tuple[str, Shape]] = [("features", ["N", 1, cells, cells])]
    if not isinstance(contract, TrunkSpec):
        nodes += _head(contract, constants, cells)
        count = len(contract.labels)
        outputs = [("logits", ["N", count]), ("probabilities", ["N", count])]
        if contract.heatmap:
            outputs.append(("evidence", ["N", count, cells, cells]))
        if isinstance(contract, RegionSpec) and contract.density is not None:
            nodes += _density(constants, cells)
            outputs.append(("density", ["N"]))
        if isinstance(contract, FractureSpec) and contract.types is not None:
            nodes += _types(contract.types, constants)
            outputs += [(port, ["N", len(contract.types.labels)]) for port in TYPE_PORTS]
    graph = helper.make_graph(
        nodes,
        contract.name,
        [helper.make_tensor_value_info(contract.input, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", 17)
    return _stamped(helper.make_model(graph, opset_imports=[opset], ir_version=9), contract)


def _stamped(model: onnx.ModelProto, contract: BundleSpec) -> bytes:
    helper.set_model_props(model, contract.to_metadata())
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _head(
    contract: RegionSpec | FractureSpec, constants: dict[str, np.ndarray], cells: int
) -> list[onnx.NodeProto]:
    places = (
        [cell_of(0, label) for label in contract.labels]
        if isinstance(contract, RegionSpec)
        else [cell_of(1, contract.region)]
    )
    pick = np.zeros((1, len(places), GRID, GRID), np.float32)
    for label, place in enumerate(places):
        pick[0, label][place] = GAIN * GRID**2
    constants |= {
        "pick": np.kron(pick, np.ones((1, 1, cells // GRID, cells // GRID), np.float32)),
        "offset": np.full(len(places), -GAIN / 2, np.float32),
        "temperature": np.array(contract.temperature, np.float32),
        "bias": np.array(contract.bias, np.float32),
    }
    return [
        helper.make_node("Mul", ["features", "pick"], ["evidence"]),
        helper.make_node("ReduceMean", ["evidence"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Add", ["mean", "offset"], ["logits"]),
        helper.make_node("Div", ["logits", "temperature"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["calibrated"]),
        helper.make_node("Sigmoid", ["calibrated"], ["probabilities"]),
    ]


def _types(types: FractureTypes, constants: dict[str, np.ndarray]) -> list[onnx.NodeProto]:
    """Fracture types: one cell of the third row for each of up to three, from the second on."""
    pick = np.zeros((GRID**2, len(types.labels)), np.float32)
    for column in range(len(types.labels)):
        pick[2 * GRID + 1 + column, column] = GAIN
    constants |= {
        "flat": np.array([0, GRID**2], np.int64),
        "pick_types": pick,
        "type_offset": np.full(len(types.labels), -GAIN / 2, np.float32),
        "type_temperature": np.array(types.temperature, np.float32),
        "type_bias": np.array(types.bias, np.float32),
    }
    activation = {"sigmoid": "Sigmoid", "softmax": "Softmax"}[types.activation]
    return [
        helper.make_node("Reshape", ["features", "flat"], ["cells"]),
        helper.make_node("MatMul", ["cells", "pick_types"], ["type_sums"]),
        helper.make_node("Add", ["type_sums", "type_offset"], [TYPE_PORTS[0]]),
        helper.make_node("Div", [TYPE_PORTS[0], "type_temperature"], ["type_scaled"]),
        helper.make_node("Add", ["type_scaled", "type_bias"], ["type_calibrated"]),
        helper.make_node(activation, ["type_calibrated"], [TYPE_PORTS[1]]),
    ]


def _density(constants: dict[str, np.ndarray], cells: int) -> list[onnx.NodeProto]:
    """The density output: 1 - the density cell."""
    pick = np.zeros((1, 1, GRID, GRID), np.float32)
    pick[0, 0][STRANGE_CELL] = GRID**2
    constants |= {
        "pick_strange": np.kron(pick, np.ones((1, 1, cells // GRID, cells // GRID), np.float32)),
        "familiar": np.array(1, np.float32),
    }
    return [
        helper.make_node("Mul", ["features", "pick_strange"], ["strange_cell"]),
        helper.make_node("ReduceMean", ["strange_cell"], ["strange"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Sub", ["familiar", "strange"], ["density"]),
    ]


def write_bundles(folder: Path, specs: Sequence[BundleSpec] | None = None) -> Path:
    """Write bundles and their manifest; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = {}
    for contract in standard_specs() if specs is None else specs:
        content = network(contract)
        file = f"{contract.name}-{contract.precision}.onnx"
        (folder / file).write_bytes(content)
        entries[contract.name, contract.precision] = ManifestEntry(
            name=contract.name,
            kind=contract.kind,
            precision=contract.precision,
            trunk=contract.trunk,
            file=file,
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
        )
    write_manifest(folder, entries)
    return folder


def with_threshold(folder: Path, threshold: float) -> Path:
    """Tiny weights whose specialists are positive from another probability."""
    unknown = Estimate(value=None, note="painted")
    point = StoredPoint(
        threshold=threshold, doubt_below=threshold / 2, rule="test", sensitivity=unknown,
        specificity=unknown,
    )  # fmt: skip
    points = {"operating_points": {"balanced": point}}
    specs = [
        spec(one.name, Kind.FRACTURE, **points) if one.kind is Kind.FRACTURE else one
        for one in standard_specs()
    ]
    return write_bundles(folder, specs)
