"""Embedding of a contract in an ONNX graph; does not need torch."""

from __future__ import annotations

import onnx

from pipeline.bundle import BundleSpec


def stamp(model: onnx.ModelProto, spec: BundleSpec) -> bytes:
    """Embed the contract in the graph; return the bytes of the bundle."""
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
