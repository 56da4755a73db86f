"""From torch modules to ONNX graphs in the precisions that are shipped."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel
from torch import nn

from pipeline.bundle import BundleSpec, Precision
from pipeline.domain import Array

OPSET = 20
FLOAT_BLOCKS = ("conv1.", "layer1.")
"""Blocks that int8 leaves in float: their channels differ in scale by thousands, so that one step
for all of them blurs the small ones, and every later block inherits the error. They are a fifth
of the arithmetic; with them (and the additions between) in int8 too, the feature map's
signal-to-noise ratio on 60 validation pictures fell from 27 dB to 13 dB."""
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
    with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript"):
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
    return program.model_proto


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights and arithmetic in half precision; inputs and outputs stay float32.

    So does batch normalisation: the variances of ImageNet networks reach beyond the range of half
    precision (83,614 in the first layer of the original ResNet50; the largest half is 65,504).
    """
    with _quiet("onnxruntime.transformers"):
        converted: onnx.ModelProto = convert_float_to_float16(
            model, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, "BatchNormalization"]
        )
        OnnxModel(converted).topological_sort()  # the casts at the inputs are appended last
    return converted


def to_int8(
    model: onnx.ModelProto, input_name: str, calibration: Iterable[Array]
) -> onnx.ModelProto:
    """Static, per-channel QDQ quantisation of the convolutions; all that lies between stays float.

    So does what :data:`FLOAT_BLOCKS` names, and the linear decision layer. Weights use seven
    bits: processors without VNNI add pairs of products in sixteen bits, which overflow with
    eight, and the picture of an old PC must not be read differently.

    Args:
        model: Float32 graph.
        input_name: Its input.
        calibration: (1, C, H, W) float32 arrays of real pictures.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet("root"):
        plain, prepared, quantised = (
            Path(folder) / f"{n}.onnx" for n in ("plain", "prepared", "int8")
        )
        onnx.save(model, plain)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantised,
            _Reader(input_name, calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=_float_nodes(onnx.load(prepared)),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(quantised)


def _float_nodes(model: onnx.ModelProto) -> list[str]:
    """Convolutions that stay float: those of the first blocks, and the evidence."""
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv"
        and ("evidence" in node.output or node.input[1].startswith(FLOAT_BLOCKS))
    ]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds calibration arrays to ONNX Runtime's quantiser."""

    def __init__(self, input_name: str, arrays: Iterable[Array]) -> None:
        self._feeds = ({input_name: array} for array in arrays)

    def get_next(self) -> dict[str, Array] | None:
        """The next feed, or None at the end."""
        return next(self._feeds, None)


class _quiet:  # noqa: N801  (used like a function)
    """Raise the level of noisy third-party loggers for a moment."""

    def __init__(self, *names: str) -> None:
        self._loggers = [logging.getLogger(name if name != "root" else None) for name in names]

    def __enter__(self) -> None:
        self._levels = [logger.level for logger in self._loggers]
        for logger in self._loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for logger, level in zip(self._loggers, self._levels, strict=True):
            logger.setLevel(level)


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
