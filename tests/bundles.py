"""Tiny bundles whose answers can be read off the picture, and pictures that ask for an answer.

The canvas is a 4 x 4 grid of cells. Cells of the first row carry P(region), those of the second
P(fracture), for elbow, hand and shoulder from the left, and the first of the third row P(fracture)
for a specialist of all regions; two cells of the last row are black and white, so that stretching
the grey values changes nothing, and one between them says how strange the picture is: its density
is 1 less that cell. The trunk averages each cell (one strided convolution); a head's logit is
``GAIN * (cell - 0.5)``, calibrated as its contract says. A complete network of ``FINE_PX`` or more
has cells of half the size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from pydantic import TypeAdapter

from pipeline.bundle import (
    TYPE_PORTS,
    BundleSpec,
    Density,
    EnsembleSpec,
    Estimate,
    FractureSpec,
    FractureTypes,
    Kind,
    Precision,
    Provenance,
    RegionSpec,
    StoredPoint,
    TrunkSpec,
)
from pipeline.domain import ANY_REGION, REGIONS
from pipeline.preprocess import Fit, PreprocessSpec
from pipeline.weights.manifest import ManifestEntry, write_manifest

GRID = 4
CELL_PX = 8
GAIN = 20.0
FINE_PX = 128
TRUNK = "a" * 64
SPEC = PreprocessSpec(
    height_px=32, width_px=32, frame="whole", fit=Fit.SQUASH, clip_percent=(0.0, 100.0)
)
ROUTE_THRESHOLD = 0.5
STRANGE_CELL = (3, 1)
GATE = Density(dimensions=1, references=1, neighbours=1, threshold=0.25, refused=0.01, far=0.3)
POINTS = {"balanced": (0.5, 0.3), "specific": (0.95, 0.95)}

_NOBODY = Provenance(
    fxpipe_version="0",
    run="test",
    created="2026-01-01T00:00:00Z",
    index_digest="0" * 64,
    data="painted",
    initial_weights="none",
    versions={},
)


def cell_of(row: int, region: str) -> tuple[int, int]:
    """Place of a region's cell: row 0 for the region itself, 1 for its fracture."""
    return (2, 0) if region == ANY_REGION else (row, REGIONS.index(region))


def probability(cell: float) -> float:
    """What a head answers for a cell of this grey value."""
    return float(1.0 / (1.0 + np.exp(-GAIN * (cell - 0.5))))


def paint(
    regions: Mapping[str, float],
    fractures: Mapping[str, float] | None = None,
    size_px: int = 32,
    strange: float = 0.1,
) -> np.ndarray:
    """(size_px, size_px) uint8 whose cells carry the given grey values in [0, 1].

    The default is the size of the canvas, so that no resizing blurs the cells.
    """
    grid = np.full((GRID, GRID), 0.1)
    for row, values in enumerate((regions, fractures or {})):
        for region, value in values.items():
            grid[cell_of(row, region)] = value
    grid[STRANGE_CELL] = strange
    grid[-1, 0], grid[-1, -1] = 0.0, 1.0
    cell = size_px // GRID
    return np.kron(np.round(grid * 255), np.ones((cell, cell))).astype(np.uint8)


def write_png(
    path: Path,
    regions: Mapping[str, float],
    fractures: Mapping[str, float] | None = None,
    strange: float = 0.1,
) -> Path:
    """Paint a picture and save it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(paint(regions, fractures, strange=strange)).save(path)
    return path


def spec(name: str, kind: Kind, **changes: object) -> BundleSpec:
    """A complete contract for one of the tiny networks."""
    values: dict[str, object] = {
        "name": name,
        "kind": kind,
        "precision": Precision.FP32,
        "preprocess": SPEC,
        "provenance": _NOBODY,
    }
    if kind is Kind.ENSEMBLE:
        values["input"] = "members"
    else:
        values |= {"input": "image" if kind is Kind.TRUNK else "features", "trunk": TRUNK}
    labels: tuple[str, ...] = ()
    if kind is Kind.REGION:
        labels = REGIONS
        values["route_thresholds"] = dict.fromkeys(REGIONS, ROUTE_THRESHOLD)
        values["density"] = GATE
    elif kind.judges:
        labels = ("fracture",)
        unknown = Estimate(value=None, note="painted")
        values |= {
            "region": name.removeprefix("fracture-"),
            "target": "fracture",
            "default_point": "balanced",
            "operating_points": {
                point: StoredPoint(
                    threshold=threshold,
                    doubt_below=doubt,
                    rule="test",
                    sensitivity=unknown,
                    specificity=unknown,
                )
                for point, (threshold, doubt) in POINTS.items()
            },
        }
    if count := len(labels):
        values |= {"labels": labels, "temperature": (1.0,) * count, "bias": (0.0,) * count}
    return contract(values | changes)


def contract(values: Mapping[str, object]) -> BundleSpec:
    """The contract of these values, of the kind that they name."""
    read: BundleSpec = TypeAdapter(BundleSpec).validate_python(values)
    return read


def ensemble(name: str, members: Sequence[BundleSpec], **changes: object) -> BundleSpec:
    """The contract of an ensemble of tiny networks."""
    values: dict[str, object] = {
        "preprocess": members[0].preprocess,
        "members": {m.name: hashlib.sha256(network(m)).hexdigest() for m in members},
    }
    return spec(name, Kind.ENSEMBLE, **values | changes)


def network(own: BundleSpec) -> bytes:
    """The ONNX file of a contract: trunk, head, both in one graph, or the mean of an ensemble."""
    if isinstance(own, EnsembleSpec):
        from stages.export.ensemble import mean_graph

        return _stamped(mean_graph(len(own.members)), own)
    cells = GRID
    nodes, constants = [], {}
    features = "features"
    if own.input == "image":
        cells *= 2 if own.preprocess.height_px >= FINE_PX else 1
        side = own.preprocess.height_px // cells
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
        shape = ["N", 1, own.preprocess.height_px, own.preprocess.width_px]
    else:
        shape = ["N", 1, GRID, GRID]
    outputs = [("features", ["N", 1, cells, cells])]
    if not isinstance(own, TrunkSpec):
        nodes += _head(own, constants, cells)
        count = len(own.labels)
        outputs = [("logits", ["N", count]), ("probabilities", ["N", count])]
        if own.heatmap:
            outputs.append(("evidence", ["N", count, cells, cells]))
        if isinstance(own, RegionSpec) and own.density is not None:
            nodes += _density(constants, cells)
            outputs.append(("density", ["N"]))
        if isinstance(own, FractureSpec) and own.types is not None:
            nodes += _types(own.types, constants)
            outputs += [(port, ["N", len(own.types.labels)]) for port in TYPE_PORTS]
    graph = helper.make_graph(
        nodes,
        own.name,
        [helper.make_tensor_value_info(own.input, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", 17)
    return _stamped(helper.make_model(graph, opset_imports=[opset], ir_version=9), own)


def _stamped(model: onnx.ModelProto, own: BundleSpec) -> bytes:
    helper.set_model_props(model, own.to_metadata())
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _head(
    own: RegionSpec | FractureSpec, constants: dict[str, np.ndarray], cells: int
) -> list[onnx.NodeProto]:
    places = (
        [cell_of(0, label) for label in own.labels]
        if isinstance(own, RegionSpec)
        else [cell_of(1, own.region)]
    )
    pick = np.zeros((1, len(places), GRID, GRID), np.float32)
    for label, place in enumerate(places):
        pick[0, label][place] = GAIN * GRID**2
    constants |= {
        "pick": np.kron(pick, np.ones((1, 1, cells // GRID, cells // GRID), np.float32)),
        "offset": np.full(len(places), -GAIN / 2, np.float32),
        "temperature": np.array(own.temperature, np.float32),
        "bias": np.array(own.bias, np.float32),
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
    """A cell of the third row for each of up to three types, from its second place on."""
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
    """1 less the cell that says how strange the picture is."""
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


def standard_specs() -> list[BundleSpec]:
    """Trunk, region head and three specialists."""
    return [
        spec("trunk", Kind.TRUNK),
        spec("region", Kind.REGION),
        *(spec(f"fracture-{region}", Kind.FRACTURE) for region in REGIONS),
    ]


def for_all() -> list[BundleSpec]:
    """One specialist for all regions and nothing before it."""
    return [spec("trunk", Kind.TRUNK), spec("fracture-all", Kind.FRACTURE)]


def write_bundles(folder: Path, specs: Sequence[BundleSpec] | None = None) -> Path:
    """Write bundles and their manifest; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = {}
    for own in standard_specs() if specs is None else specs:
        content = network(own)
        file = f"{own.name}-{own.precision}.onnx"
        (folder / file).write_bytes(content)
        entries[own.name, own.precision] = ManifestEntry(
            name=own.name,
            kind=own.kind,
            precision=own.precision,
            trunk=own.trunk,
            file=file,
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
        )
    write_manifest(folder, entries)
    return folder
