"""Model repository for NVIDIA Triton Inference Server; does not need torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx

from pipeline.bundle import Precision
from pipeline.fused_contract import FusedSpec
from pipeline.weights.manifest import read_manifest, read_verified

from ..bundles.writer import keep_notice

MODEL = "fxpipe"
QUEUE_DELAY_US = 2000
"""Maximum time in µs that a request waits for dynamic batching."""


def write_repository(weights: Path, precision: Precision, batch: int, repository: Path) -> Path:
    """Write the model ``fxpipe``, version 1.

    Args:
        weights: Folder with a fused graph.
        precision: Precision of the served file.
        batch: Largest batch size, two or more.
        repository: Folder; may hold other models.

    Returns:
        The model's folder.
    """
    (entry,) = read_manifest(weights).of(precision)
    content = read_verified(weights, entry)
    folder = repository / MODEL
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(content)
    text = config_text(onnx.load_from_string(content), batch)
    (folder / "config.pbtxt").write_text(text, encoding="utf-8")
    keep_notice(weights, folder)
    return folder


def config_text(model: onnx.ModelProto, batch: int) -> str:
    """``config.pbtxt``: ports without the batch dimension, and dynamic batching.

    Devices and number of instances are left to the server.

    Args:
        model: Fused graph.
        batch: Largest batch size, two or more.
    """
    spec = FusedSpec.from_metadata({p.key: p.value for p in model.metadata_props}, MODEL)
    columns = [f"# columns of {key}_*: {', '.join(names)}" for key, names in spec.columns.items()]
    lines = [
        f"# {spec.precision}; preprocessing, columns and thresholds: metadata of the graph",
        *columns,
        f'name: "{MODEL}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {batch}",
        *_ports("input", model.graph.input),
        *_ports("output", model.graph.output),
        "dynamic_batching {",
        f"  preferred_batch_size: [ {batch // 2}, {batch} ]",
        f"  max_queue_delay_microseconds: {QUEUE_DELAY_US}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _ports(field: str, ports: Iterable[onnx.ValueInfoProto]) -> Iterator[str]:
    for port in ports:
        _, *dims = port.type.tensor_type.shape.dim
        yield f"{field} {{"
        yield f'  name: "{port.name}"'
        yield "  data_type: TYPE_FP32"
        yield f"  dims: [ {', '.join(str(dim.dim_value) for dim in dims) or 1} ]"
        if not dims:  # one number per picture: Triton has no empty dims
            yield "  reshape { shape: [ ] }"
        yield "}"
