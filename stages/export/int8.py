"""Static int8 quantisation of a float graph, with batch norm folded into the convolutions.

The resulting weights cannot overflow an intermediate sum, even on processors without VNNI.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxscript.optimizer import optimize

from pipeline.bundle import DENSITY
from pipeline.domain import Array
from pipeline.runtime.providers import open_session

from ..warning_filter import quiet_loggers
from .rounding import round_weights, safe_step

FLOAT_BLOCKS = ("conv1.", "layer1.0.")
"""Blocks that stay float: one twelfth of a ResNet50's arithmetic. On 24 validation pictures the
feature map's signal-to-noise ratio is 28 dB with them in float, and 23 dB without."""

_QUANTISED = ["Conv", "Add", "Relu", "MaxPool"]
PATCH_VALUES = 4_000_000
"""Number of sampled input values per convolution."""

_MAX_BIAS = 2**30
"""In steps of the 32-bit bias."""

_MAX_WEIGHTS = 1200
"""Maximum number of weights per output channel for optimised rounding; late convolutions have more
and need it less."""


def to_int8(
    model: onnx.ModelProto, input_name: str, calibration: Iterable[Array]
) -> onnx.ModelProto:
    """Static, per-channel QDQ quantisation of convolutions and of the additions between them.

    Batch normalisation is folded into the convolutions first (Jacob et al. 2017, arXiv
    1712.05877), so that activations between them stay in eight bits. :data:`FLOAT_BLOCKS`, the
    evidence, the linear decision layer, and the density gate stay float.

    Args:
        model: Float32 graph.
        input_name: Name of its input.
        calibration: (1, C, H, W) float32 arrays of real pictures.
    """
    pictures = list(calibration)
    with tempfile.TemporaryDirectory() as folder, quiet_loggers("root"):
        plain, prepared, quantised = (
            Path(folder) / f"{n}.onnx" for n in ("plain", "prepared", "int8")
        )
        onnx.save(optimize(model), plain)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        floats = onnx.load(prepared)
        quantize_static(
            prepared,
            quantised,
            _Reader(input_name, pictures),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_QUANTISED,
            nodes_to_exclude=_float_nodes(floats),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # The mean of the pictures' extremes: a single outlier does not set the range.
            extra_options={"CalibMovingAverage": True, "CalibMovingAverageConstant": 0.1},
        )
        result = onnx.load(quantised)
    _refine(result, floats, pictures)
    return result


def _put(initializer: onnx.TensorProto, values: NDArray[Any]) -> None:
    initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))


def _float_nodes(model: onnx.ModelProto) -> list[str]:
    """Nodes that stay float: first blocks, evidence, density, and additions without a ReLU.

    In networks other than ResNets such additions would lose too much in eight bits.
    """
    rectified = {node.input[0] for node in model.graph.node if node.op_type == "Relu"}
    early: set[str] = set()
    kept = [node.name for node in only_for(model, DENSITY)]
    for node in model.graph.node:
        follows = node.op_type != "Conv" and all(name in early for name in node.input)
        begins = node.op_type == "Conv" and node.input[1].startswith(FLOAT_BLOCKS)
        if follows or begins:
            early.update(node.output)
        alone = node.op_type == "Add" and node.output[0] not in rectified
        if follows or begins or alone or "evidence" in node.output:
            kept.append(node.name)
    return kept


def only_for(model: onnx.ModelProto, output: str) -> list[onnx.NodeProto]:
    """The nodes that compute only the given output; none if it does not exist."""
    needed, by_others = (
        {port.name for port in model.graph.output if (port.name == output) is equal}
        for equal in (True, False)
    )
    for names in (needed, by_others):
        for node in reversed(model.graph.node):  # topologically sorted
            if names & set(node.output):
                names.update(node.input)
    exclusive = needed - by_others
    return [node for node in model.graph.node if exclusive & set(node.output)]


def _refine(
    quantised: onnx.ModelProto, floats: onnx.ModelProto, calibration: Sequence[Array]
) -> None:
    """Optimise the rounding of dense kernels, and correct the biases for its mean error.

    Args:
        quantised: QDQ graph; its weights, their steps and its biases are changed.
        floats: The float graph.
        calibration: Pictures from which the inputs of the convolutions are sampled.
    """
    initializers = {i.name: i for i in quantised.graph.initializer}
    producers = {name: node for node in quantised.graph.node for name in node.output}
    values = {i.name: numpy_helper.to_array(i) for i in floats.graph.initializer}
    convolutions = {
        _source(producers, n.input[1]): n for n in quantised.graph.node if n.op_type == "Conv"
    }
    for name, patches in seen_patches(floats, calibration):
        node = convolutions.get(f"{name}_quantized")
        if node is None:
            continue
        weight = values[name].astype(np.float64)
        step = safe_step(weight)
        bias = _source(producers, node.input[2]) if len(node.input) > 2 else ""
        # The step of a bias is that of the input times that of the weights.
        input_step = float(numpy_helper.to_array(initializers[producers[node.input[0]].input[1]]))
        if bias:
            magnitude = np.abs(values[bias.removesuffix("_quantized")])
            step = np.maximum(step, magnitude / (input_step * _MAX_BIAS))
        levels = np.rint(weight / step[:, None, None, None]).astype(np.int8)
        if patches.shape[1] <= _MAX_WEIGHTS:
            levels = round_weights(weight, step, patches)
        _put(initializers[f"{name}_quantized"], levels)
        _put(initializers[f"{name}_scale"], step.astype(np.float32))
        if bias:
            lost = (weight - levels * step[:, None, None, None]).reshape(len(weight), -1)
            exact = values[bias.removesuffix("_quantized")] + lost @ patches.mean(0)
            bias_step = step * input_step
            _put(initializers[producers[node.input[2]].input[1]], bias_step.astype(np.float32))
            _put(initializers[bias], np.rint(exact / bias_step).astype(np.int32))


def _is_dense(node: onnx.NodeProto, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether a node is a 2D convolution that is neither grouped nor dilated."""
    if node.op_type != "Conv" or len(shapes.get(node.input[1], ())) != 4:
        return False
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return attributes.get("group", 1) == 1 and set(attributes.get("dilations", [1])) == {1}


def _source(producers: Mapping[str, onnx.NodeProto], name: str) -> str:
    return producers[name].input[0] if name in producers else ""


def seen_patches(
    model: onnx.ModelProto, pictures: Sequence[Array]
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Patches of each dense convolution's input at random positions.

    Args:
        model: Float32 graph.
        pictures: (1, C, H, W) inputs of the graph.

    Yields:
        Name of a convolution's weight, and (P, I · height · width) patches.
    """
    instrumented = onnx.ModelProto()
    instrumented.CopyFrom(model)
    shapes = {i.name: list(i.dims) for i in model.graph.initializer}
    nodes = [node for node in model.graph.node if _is_dense(node, shapes)]
    conv_inputs = list(dict.fromkeys(node.input[0] for node in nodes))
    graph_inputs = [i.name for i in model.graph.input]
    del instrumented.graph.output[:]
    instrumented.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in conv_inputs if name not in graph_inputs
    )  # fmt: skip
    session, _ = open_session(instrumented.SerializeToString(), "cpu", 0, "calibration")
    names = [port.name for port in session.get_outputs()]
    random = np.random.default_rng(0)
    patches: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    for picture in pictures:
        maps = dict(zip(names, session.run(names, {graph_inputs[0]: picture}), strict=True))
        maps[graph_inputs[0]] = picture
        for node in nodes:
            shape = shapes[node.input[1]]
            count = -(-PATCH_VALUES // prod(shape[1:]) // len(pictures))
            patches[node.name].append(_patches(maps[node.input[0]][0], node, shape, count, random))
    for node in nodes:
        yield node.input[1], np.concatenate(patches.pop(node.name)).astype(np.float64)


def _patches(
    maps: Array, node: onnx.NodeProto, shape: Sequence[int], count: int, random: np.random.Generator
) -> NDArray[np.float32]:
    """(count, I · height · width) input patches of a convolution (O, I, height, width)."""
    attributes = {attribute.name: list(attribute.ints) for attribute in node.attribute}
    top, left, bottom, right = attributes.get("pads") or [0] * 4
    stride = attributes.get("strides") or [1, 1]
    padded = np.pad(maps, ((0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, shape[2:], (1, 2))
    windows = windows[:, :: stride[0], :: stride[1]]
    rows, columns = (random.integers(0, size, count) for size in windows.shape[1:3])
    chosen = windows[:, rows, columns].swapaxes(0, 1)
    return np.ascontiguousarray(chosen).reshape(count, -1)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds calibration arrays to ONNX Runtime's quantiser."""

    def __init__(self, input_name: str, arrays: Iterable[Array]) -> None:
        self._feeds = ({input_name: array} for array in arrays)

    def get_next(self) -> dict[str, Array] | None:
        """The next feed, or None at the end."""
        return next(self._feeds, None)
