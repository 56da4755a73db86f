"""Conversion of torch modules to ONNX graphs in the shipped precisions."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel
from onnxscript.optimizer import fold_constants, remove_unused_nodes
from torch import nn

from pipeline.bundle import DENSITY, Precision
from pipeline.domain import Array

from ..warning_filter import quiet_loggers
from .int8 import only_for, to_int8

OPSET = 20


def to_onnx(
    module: nn.Module, example: Array, input_name: str, outputs: Sequence[str]
) -> onnx.ModelProto:
    """Export a module to a float32 graph with a dynamic batch size; weights keep their torch names.

    Args:
        module: A trunk or a head, in evaluation mode.
        example: (1, C, H, W) float32 of the input size.
        input_name: ``image`` or ``features``.
        outputs: Names of the module's outputs, in order.
    """
    module.eval()
    # Two rows, because torch.export treats a dimension of one as constant.
    pair = torch.from_numpy(np.concatenate([example, example]))
    with warnings.catch_warnings(), quiet_loggers("torch.onnx", "onnxscript"):
        warnings.simplefilter("ignore")  # deprecation warnings inside the exporter
        program = torch.onnx.export(
            module,
            (pair,),
            input_names=[input_name],
            output_names=list(outputs),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    assert program is not None  # noqa: S101  (only the old exporter returns None)
    # The exporter computes the zero biases of convolutions in the graph, which prevents ONNX
    # Runtime from fusing batch normalisation into them.
    fold_constants(program.model)
    remove_unused_nodes(program.model)
    return program.model_proto


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert weights and arithmetic to half precision; inputs and outputs stay float32.

    Batch normalisation stays float32, because the variances of ImageNet networks exceed the range
    of half precision (83,614 in the first layer of the original ResNet50; the largest half is
    65,504). The density gate stays float32, because its threshold is finer than half precision.
    """
    rest, gate = _split_off(model, DENSITY)
    with quiet_loggers("onnxruntime.transformers"):
        converted: onnx.ModelProto = convert_float_to_float16(
            rest, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, "BatchNormalization"]
        )
        _put_back(converted, gate)
        OnnxModel(converted).topological_sort()  # the casts at the inputs are appended last
    return converted


def _split_off(model: onnx.ModelProto, output: str) -> tuple[onnx.ModelProto, onnx.GraphProto]:
    """Split a graph into one without an output, and the nodes that compute only that output.

    Excluding nodes from the conversion to half precision is not enough: it rounds values that pass
    between excluded nodes.
    """
    rest, split_off = onnx.ModelProto(), onnx.GraphProto()
    rest.CopyFrom(model)
    split_off.node.extend(only_for(model, output))
    names = {name for node in split_off.node for name in node.output}
    remaining = [node for node in model.graph.node if not names & set(node.output)]
    shared = {name for node in remaining for name in node.input}
    moved = {name for node in split_off.node for name in node.input} - shared
    split_off.initializer.extend(i for i in model.graph.initializer if i.name in moved)
    split_off.output.extend(port for port in model.graph.output if port.name == output)
    for field, values in (
        ("node", remaining),
        ("initializer", [i for i in model.graph.initializer if i.name not in moved]),
        ("output", [port for port in model.graph.output if port.name != output]),
        ("value_info", [v for v in model.graph.value_info if v.name not in names]),
    ):
        del getattr(rest.graph, field)[:]
        getattr(rest.graph, field).extend(values)
    return rest, split_off


def _put_back(converted: onnx.ModelProto, split_off: onnx.GraphProto) -> None:
    """Add the nodes removed by :func:`_split_off`, with inputs in single precision."""
    graph = converted.graph
    halves = {name for node in graph.node if node.op_type != "Constant" for name in node.output}
    boundary = halves & {name for node in split_off.node for name in node.input}
    for name in sorted(boundary):
        graph.node.append(
            helper.make_node("Cast", [name], [f"{name}_single"], to=TensorProto.FLOAT)
        )
    for node in split_off.node:
        for place, name in enumerate(node.input):
            node.input[place] = f"{name}_single" if name in boundary else name
    for field in ("node", "initializer", "output"):
        getattr(graph, field).extend(getattr(split_off, field))


def derive(
    model: onnx.ModelProto, input_name: str, calibration: Iterable[Array],
    precision: Precision,
) -> onnx.ModelProto:  # fmt: skip
    """Convert the graph to a precision."""
    if precision is Precision.INT8:
        return to_int8(model, input_name, calibration)
    return to_fp16(model) if precision is Precision.FP16 else model
