"""From torch modules to ONNX graphs in the precisions that are shipped."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import onnx
import torch
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel
from onnxscript.optimizer import fold_constants, remove_unused_nodes
from torch import nn

from pipeline.bundle import BundleSpec, Precision
from pipeline.domain import Array

from .int8 import to_int8
from .quiet import quiet_loggers

OPSET = 20
STAGE_OUTPUTS = ("logits", "probabilities", "evidence")
TRUNK_OUTPUTS = ("features",)


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
    precision (83,614 in the first layer of the original ResNet50; the largest half is 65,504).
    """
    with quiet_loggers("onnxruntime.transformers"):
        converted: onnx.ModelProto = convert_float_to_float16(
            model, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, "BatchNormalization"]
        )
        OnnxModel(converted).topological_sort()  # the casts at the inputs are appended last
    return converted


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
