"""New thresholds for bundles that exist, from a site's own validation pictures.

Nothing is trained: the trunk and every weight stay bit for bit. What changes is the contract in
the fracture bundles, and, unless only the points are asked for, their temperature and bias.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
from onnx import numpy_helper

from pipeline.bundle import (
    BundleSpec,
    Kind,
    ManifestEntry,
    Precision,
    StoredPoint,
    read_manifest,
    read_verified,
    write_manifest,
)
from pipeline.config import RunConfig
from pipeline.errors import ConfigError, UsageError
from pipeline.progress import Progress
from pipeline.runtime.session import Weights, load_bundles

from .calibrate import fit_calibration, operating_points, probabilities
from .data.index import Index, Split
from .evaluation.predictions import predict
from .export import stamp

log = logging.getLogger(__name__)
FEWEST = 10
"""Cases of each label below which a region keeps its old calibration: its points would be noise."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for.

    Attributes:
        sensitivity: Target of *sensitive*, in (0, 1).
        specificity: Target of *specific*, in (0, 1).
        split: Of the table: pictures that no network was trained on.
        points_only: Keep temperature and bias.
    """

    sensitivity: float
    specificity: float
    split: Split
    points_only: bool


@dataclass(frozen=True, slots=True)
class Recalibrated:
    """The new contract of a region's specialist.

    Attributes:
        temperature, bias: See :class:`pipeline.bundle.BundleSpec`.
        points: By name.
        pictures, positives: What they were fitted on.
    """

    temperature: float
    bias: float
    points: Mapping[str, StoredPoint]
    pictures: int
    positives: int


def recalibrate(
    index: Index, weights: Path, target: Path, wanted: Wanted, config: RunConfig,
    progress: Progress,
) -> dict[str, Recalibrated]:  # fmt: skip
    """Write a weights folder whose specialists have thresholds of this table's pictures.

    Args:
        index: Table.
        weights: Folder to start from; stays as it is.
        target: New folder.
        wanted: Targets and split.
        config: Device and precision that compute the predictions.
        progress: Advanced once a picture.

    Returns:
        What is new, by region.

    Raises:
        ConfigError: The table has no labelled picture of any region in that split, or its
            labels mean something else than the networks' do.
        UsageError: The target is the source, or holds something already.
        BundleError: The weights are damaged.
    """
    if target.resolve() == weights.resolve() or (target.exists() and any(target.iterdir())):
        raise UsageError(f"{target}: not empty, wanted a new folder", "name another --output")
    networks = load_bundles(weights, config)
    samples = [s for s in index.of(wanted.split) if s.label is not None]
    for stage in networks.fracture.values():
        kinds = {s.label_kind for s in samples} - {stage.spec.target}
        if kinds:
            raise ConfigError(
                f"{index.source}: labels say {', '.join(sorted(kinds))}, bundle "
                f"{stage.spec.name} says {stage.spec.target}"
            )
    table, _ = predict(samples, index.source.parent, networks, config, progress)
    table = table[table["status"] != "failed"]
    chosen: dict[str, pd.DataFrame] = {}
    for region in networks.fracture:
        rows = table[table[f"view_{region}"] == 1]
        positives = int(rows["label"].sum())
        if min(positives, len(rows) - positives) >= FEWEST:
            chosen[region] = rows
            continue
        log.warning(
            "%s: %d fractured and %d other pictures in split %s, wanted %d of each: its "
            "thresholds stay", region, positives, len(rows) - positives, wanted.split, FEWEST,
        )  # fmt: skip
    found = _fit(chosen, networks, wanted, index)
    if not found:
        raise ConfigError(
            f"{index.source}: too few labelled pictures in split {wanted.split}, wanted "
            f"{FEWEST} fractured and {FEWEST} others of a region"
        )
    _rewrite(weights, target, found)
    return found


def _fit(
    chosen: Mapping[str, pd.DataFrame], networks: Weights, wanted: Wanted, index: Index
) -> dict[str, Recalibrated]:
    """One calibration for all, thresholds for each; see :mod:`stages.finished` for why."""
    labels = {region: rows["label"].to_numpy(np.float32) for region, rows in chosen.items()}
    logits = {
        region: rows[f"fracture_logit_{region}"].to_numpy(np.float32)
        for region, rows in chosen.items()
    }
    if chosen and not wanted.points_only:
        together = (np.concatenate(list(part.values())) for part in (labels, logits))
        fitted = fit_calibration(*together)
    source = f"split {wanted.split} of {index.source.name} ({index.digest[:12]})"
    found = {}
    for region in chosen:
        spec = networks.fracture[region].spec
        pair = (spec.temperature[0], spec.bias[0]) if wanted.points_only else fitted
        scores = probabilities(logits[region], *(np.array([x], np.float32) for x in pair))
        points = operating_points(
            labels[region], scores, wanted.sensitivity, wanted.specificity, source
        )
        positives = int(labels[region].sum())
        found[region] = Recalibrated(*pair, points, len(scores), positives)
    return found


def _rewrite(weights: Path, target: Path, found: Mapping[str, Recalibrated]) -> None:
    """Copy a weights folder, the specialists with their new contract."""
    entries: dict[tuple[str, Precision], ManifestEntry] = {}
    for entry in read_manifest(weights).bundles:
        content = read_verified(weights, entry)
        if entry.kind is Kind.FRACTURE:
            content = _with_contract(content, entry.file, found)
        file = target / entry.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        entries[entry.name, entry.precision] = entry.model_copy(
            update={"sha256": digest, "size_bytes": len(content)}
        )
    write_manifest(target, entries)
    if (weights / "README.md").is_file():
        shutil.copy(weights / "README.md", target / "README.md")


def _with_contract(content: bytes, file: str, found: Mapping[str, Recalibrated]) -> bytes:
    graph = onnx.load_from_string(content)
    metadata = {prop.key: prop.value for prop in graph.metadata_props}
    spec = BundleSpec.from_metadata(metadata, file)
    new = found.get(str(spec.region))
    if new is None:
        return content
    for name, value in (("temperature", new.temperature), ("bias", new.bias)):
        held = [i for i in graph.graph.initializer if i.name == name]
        if len(held) != 1:
            raise ConfigError(f"{file}: no {name} in the graph, wanted one exported by fxpipe")
        kind = numpy_helper.to_array(held[0]).dtype
        held[0].CopyFrom(numpy_helper.from_array(np.array([value], kind), name))
    update = {"temperature": (new.temperature,), "bias": (new.bias,)}
    changed = spec.model_copy(update={**update, "operating_points": dict(new.points)})
    return stamp(graph, BundleSpec.model_validate(changed.model_dump()))
