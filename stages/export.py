"""From torch modules to ONNX graphs in the precisions that are shipped."""

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

from pipeline.bundle import DENSITY, BundleSpec, Precision
from pipeline.domain import Array

from .int8 import only_for, to_int8
from .quiet import quiet_loggers

OPSET = 20


def to_onnx(
    module: nn.Module, example: Array, input_name: str, outputs: Sequence[str]
) -> onnx.ModelProto:
    """A module as a float32 graph with a free batch size; weights keep their torch names.

    Args:
        module: A trunk or a head, in evaluation mode.
        example: (1, C, H, W) float32 of the size that the graph takes.
        input_name: ``image`` or ``features``.
        outputs: Names in the order of the module's results.
    """
    module.eval()
    # Two rows: torch.export takes a dimension of one for a constant.
    pair = torch.from_numpy(np.concatenate([example, example]))
    with warnings.catch_warnings(), quiet_loggers("torch.onnx", "onnxscript"):
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecations
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
    # The exporter computes the zero biases of convolutions in the graph, where they keep ONNX
    # Runtime from merging batch normalisation into them.
    fold_constants(program.model)
    remove_unused_nodes(program.model)
    return program.model_proto


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights and arithmetic in half precision; inputs and outputs stay float32.

    So does batch normalisation: the variances of ImageNet networks reach beyond the range of half
    precision (83,614 in the first layer of the original ResNet50; the largest half is 65,504). And
    so does the density gate, whose threshold is finer than half precision.
    """
    rest, gate = _apart(model, DENSITY)
    with quiet_loggers("onnxruntime.transformers"):
        converted: onnx.ModelProto = convert_float_to_float16(
            rest, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, "BatchNormalization"]
        )
        _put_back(converted, gate)
        OnnxModel(converted).topological_sort()  # the casts at the inputs are appended last
    return converted


def _apart(model: onnx.ModelProto, output: str) -> tuple[onnx.ModelProto, onnx.GraphProto]:
    """A graph without one of its outputs, and what computes that output alone.

    A list of nodes that the conversion to half precision leaves alone would not do: it rounds what
    passes from one of them to the next.
    """
    rest, own = onnx.ModelProto(), onnx.GraphProto()
    rest.CopyFrom(model)
    own.node.extend(only_for(model, output))
    names = {name for node in own.node for name in node.output}
    left = [node for node in model.graph.node if not names & set(node.output)]
    shared = {name for node in left for name in node.input}
    taken = {name for node in own.node for name in node.input} - shared
    own.initializer.extend(i for i in model.graph.initializer if i.name in taken)
    own.output.extend(port for port in model.graph.output if port.name == output)
    for field, kept in (
        ("node", left),
        ("initializer", [i for i in model.graph.initializer if i.name not in taken]),
        ("output", [port for port in model.graph.output if port.name != output]),
        ("value_info", [v for v in model.graph.value_info if v.name not in names]),
    ):
        del getattr(rest.graph, field)[:]
        getattr(rest.graph, field).extend(kept)
    return rest, own


def _put_back(converted: onnx.ModelProto, own: onnx.GraphProto) -> None:
    """Add what :func:`_apart` took, fed in single precision."""
    graph = converted.graph
    halves = {name for node in graph.node if node.op_type != "Constant" for name in node.output}
    seams = halves & {name for node in own.node for name in node.input}
    for name in sorted(seams):
        graph.node.append(
            helper.make_node("Cast", [name], [f"{name}_single"], to=TensorProto.FLOAT)
        )
    for node in own.node:
        for place, name in enumerate(node.input):
            node.input[place] = f"{name}_single" if name in seams else name
    for field in ("node", "initializer", "output"):
        getattr(graph, field).extend(getattr(own, field))


def stamp(model: onnx.ModelProto, spec: BundleSpec) -> bytes:
    """The graph with its contract embedded, as the bytes of a bundle."""
    stamped = onnx.ModelProto()
    stamped.CopyFrom(model)
    del stamped.metadata_props[:]
    for node in stamped.graph.node:  # stack traces of the exporting machine
        del node.metadata_props[:]
    onnx.helper.set_model_props(stamped, spec.to_metadata())
    stamped.doc_string = ""
    onnx.checker.check_model(stamped)
    content: bytes = stamped.SerializeToString()
    return content


def derive(
    model: onnx.ModelProto, input_name: str, calibration: Iterable[Array],
    precision: Precision,
) -> onnx.ModelProto:  # fmt: skip
    """The graph in a precision."""
    if precision is Precision.INT8:
        return to_int8(model, input_name, calibration)
    return to_fp16(model) if precision is Precision.FP16 else model
