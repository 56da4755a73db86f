"""New thresholds for existing bundles, from a site's own validation pictures.

Nothing is trained: the trunk and all weights stay identical. Only the contract of the fracture
bundles changes, and, unless ``points_only`` is set, their temperature and bias.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
from onnx import numpy_helper

from pipeline.bundle import EnsembleSpec, FractureSpec, Precision, StoredPoint, read_contract
from pipeline.config import RunConfig
from pipeline.domain import ANY_REGION, REGIONS
from pipeline.errors import ConfigError
from pipeline.progress import Progress
from pipeline.runtime.session import Weights, load_bundles
from pipeline.weights.manifest import ManifestEntry, read_staged, read_verified, write_manifest

from ..bundles.stamp import stamp
from ..bundles.writer import keep_notice, refuse_used
from ..data.training_overlap import log_seen
from ..evaluation.predictions import predict
from ..samples import Index, Sample, Split
from ..statistics.calibration import MIN_CASES, fit_calibration, operating_points, probabilities
from ..statistics.study_thresholds import StudyBy, StudyPoints, fit_study_points

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Settings of a recalibration.

    Attributes:
        sensitivity: Target of *sensitive*, in (0, 1).
        specificity: Target of *specific*, in (0, 1).
        split: Split of the table, with pictures that no network was trained on.
        points_only: Keep temperature and bias.
        study_by: The column that identifies the study of a picture.
    """

    sensitivity: float
    specificity: float
    split: Split
    points_only: bool
    study_by: StudyBy = "study"


@dataclass(frozen=True, slots=True)
class Recalibrated:
    """The new contract of a region's specialist.

    Attributes:
        temperature, bias: See :class:`pipeline.bundle.AnswerSpec`.
        points: Operating points by name.
        pictures, positives: Numbers of pictures of the fit.
        studies: Operating points for whole studies. Older ones are always removed: they hold for
            other probabilities, or for another site.
        together: The regions, including this one, on whose pictures temperature and bias were
            fitted; empty if they were not fitted.
    """

    temperature: float
    bias: float
    points: Mapping[str, StoredPoint]
    pictures: int
    positives: int
    studies: StudyPoints
    together: tuple[str, ...] = ()


def recalibrate(
    index: Index, weights: Path, target: Path, wanted: Wanted, config: RunConfig,
    progress: Progress, only: str | None = None,
) -> dict[str, Recalibrated]:  # fmt: skip
    """Write a weights folder whose specialists have thresholds fitted to this table.

    Ensembles are recalibrated too; their members stay identical.

    Args:
        index: Table.
        weights: Source folder; not modified.
        target: New folder.
        wanted: Targets and split.
        config: Device and precision of the predictions.
        progress: Advanced once per picture.
        only: Region of the only specialist to change; None for all.

    Returns:
        The new contracts, by region.

    Raises:
        ConfigError: The split has too few labelled pictures of every region, or the labels have
            another meaning than those of the networks.
        UsageError: The target is not empty.
        BundleError: The weights are damaged, or a fused graph.
    """
    refuse_used(target)
    read_staged(weights)
    # A single look: the fit does not apply to closer looks.
    networks = load_bundles(weights, config.model_copy(update={"looks": 1}))
    if only is not None:
        networks = replace(networks, fracture={only: networks.fracture[only]})
    heads = (part for stage in networks.fracture.values() for part in stage.networks)
    trunks = (trunk.spec for trunk in networks.trunks.values())
    log_seen(index, wanted.split, [*trunks, *(part.spec for part in heads)])
    samples = labelled(index, wanted.split, only)
    for stage in networks.fracture.values():
        kinds = {s.label_kind for s in samples} - {stage.spec.target}
        if kinds:
            raise ConfigError(
                f"{index.source}: the labels mean {', '.join(sorted(kinds))}, but bundle "
                f"{stage.spec.name} predicts {stage.spec.target}"
            )
    table, _ = predict(samples, index.source.parent, networks, config, progress)
    # Pictures that were refused when they were read have no predictions.
    logits = [f"fracture_logit_{region}" for region in networks.fracture]
    table = table[table[logits].notna().all(axis=1)]
    chosen: dict[str, pd.DataFrame] = {}
    for region in networks.fracture:
        rows = table if region == ANY_REGION else table[table[f"view_{region}"] == 1]
        positives = int(rows["label"].sum())
        if min(positives, len(rows) - positives) >= MIN_CASES:
            chosen[region] = rows
            continue
        log.warning(
            "%s: %d positive and %d other pictures in split %s, %d of each are needed: its "
            "thresholds stay", region, positives, len(rows) - positives, wanted.split, MIN_CASES,
        )  # fmt: skip
    fitted = _fit(chosen, networks, wanted, index)
    if not fitted:
        raise ConfigError(
            f"{index.source}: too few labelled pictures in split {wanted.split}; a region needs "
            f"{MIN_CASES} positive and {MIN_CASES} others"
        )
    _rewrite(weights, target, {networks.fracture[r].spec.name: new for r, new in fitted.items()})
    return fitted


def labelled(index: Index, split: Split, only: str | None) -> list[Sample]:
    """The labelled pictures of a split; only those that show ``only`` if it is a region."""
    samples = [sample for sample in index.of(split) if sample.label is not None]
    return [sample for sample in samples if only not in REGIONS or sample.shows(str(only))]


def _fit(
    chosen: Mapping[str, pd.DataFrame], networks: Weights, wanted: Wanted, index: Index
) -> dict[str, Recalibrated]:
    """Fit one calibration per family of specialists, and thresholds for each specialist."""
    labels = {region: rows["label"].to_numpy(np.float32) for region, rows in chosen.items()}
    logits = {
        region: rows[f"fracture_logit_{region}"].to_numpy(np.float32)
        for region, rows in chosen.items()
    }
    fitted: dict[str, tuple[float, float]] = {}
    together: dict[str, tuple[str, ...]] = {}
    for family in [] if wanted.points_only else _families(chosen, networks):
        together |= dict.fromkeys(family, tuple(family))
        parts = (np.concatenate([part[region] for region in family]) for part in (labels, logits))
        fitted |= dict.fromkeys(family, fit_calibration(*parts))
    source = f"split {wanted.split} of {index.source.name} ({index.digest[:12]})"
    recalibrated = {}
    for region in chosen:
        spec = networks.fracture[region].spec
        pair = (spec.temperature[0], spec.bias[0]) if wanted.points_only else fitted[region]
        scores = probabilities(logits[region], *(np.array([x], np.float32) for x in pair))
        points = operating_points(
            labels[region], scores, wanted.sensitivity, wanted.specificity, source
        )
        positives = int(labels[region].sum())
        studies = fit_study_points(
            chosen[region][wanted.study_by].to_numpy(str), labels[region], scores,
            wanted.study_by, wanted.sensitivity, wanted.specificity, source,
        )  # fmt: skip
        recalibrated[region] = Recalibrated(
            *pair, points, len(scores), positives, studies, together.get(region, ())
        )
    return recalibrated


def _families(regions: Iterable[str], networks: Weights) -> list[list[str]]:
    """Regions whose specialists share a calibration; see :mod:`stages.training.finished_run`.

    A specialist for all regions, and an ensemble, whose log odds are of calibrated probabilities,
    have a separate calibration each.
    """
    families: dict[str, list[str]] = {}
    for region in regions:
        spec = networks.fracture[region].spec
        single = region != ANY_REGION and not isinstance(spec, EnsembleSpec)
        families.setdefault("" if single else region, []).append(region)
    return list(families.values())


def _rewrite(weights: Path, target: Path, contracts: Mapping[str, Recalibrated]) -> None:
    """Copy a weights folder, with new contracts for the specialists (by bundle name).

    The notice is copied; cards and figures are not, because they hold for the old thresholds.
    """
    entries: dict[tuple[str, Precision], ManifestEntry] = {}
    for entry in read_staged(weights).bundles:
        content = read_verified(weights, entry)
        if entry.name in contracts:
            content = _with_contract(content, entry.file, contracts[entry.name])
        file = target / entry.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        entries[entry.name, entry.precision] = entry.model_copy(
            update={"sha256": digest, "size_bytes": len(content)}
        )
    keep_notice(weights, target)
    write_manifest(target, entries)


def _with_contract(content: bytes, file: str, new: Recalibrated) -> bytes:
    graph = onnx.load_from_string(content)
    metadata = {prop.key: prop.value for prop in graph.metadata_props}
    spec = read_contract(metadata, file)
    for name, value in (("temperature", new.temperature), ("bias", new.bias)):
        matches = [i for i in graph.graph.initializer if i.name == name]
        if len(matches) != 1:
            raise ConfigError(f"{file}: the graph has no {name}; it must be exported by fxpipe")
        dtype = numpy_helper.to_array(matches[0]).dtype
        matches[0].CopyFrom(numpy_helper.from_array(np.array([value], dtype), name))
    changes: dict[str, Any] = {
        "temperature": (new.temperature,),
        "bias": (new.bias,),
        "operating_points": new.points,
        "study_points": new.studies.points,
    }
    if isinstance(spec, FractureSpec):
        changes["closer"] = None  # fitted to other pictures
    return stamp(graph, spec.changed(**changes))
