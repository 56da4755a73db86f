"""New thresholds for bundles that exist, from a site's own validation pictures.

Nothing is trained: the trunk and every weight stay bit for bit. What changes is the contract in
the fracture bundles, and, unless only the points are asked for, their temperature and bias.
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

from pipeline.bundle import (
    EnsembleSpec,
    FractureSpec,
    Precision,
    StoredPoint,
    read_contract,
)
from pipeline.config import RunConfig
from pipeline.domain import ANY_REGION, REGIONS
from pipeline.errors import ConfigError
from pipeline.progress import Progress
from pipeline.runtime.session import Weights, load_bundles
from pipeline.weights.manifest import ManifestEntry, read_staged, read_verified, write_manifest

from .calibrate import FEWEST, fit_calibration, operating_points, probabilities
from .data.index import Index, Sample, Split
from .evaluation.predictions import predict
from .export import stamp
from .new_folder import keep_notice, refuse_used
from .seen import tell_seen
from .studies import StudyBy, StudyPoints, fit_study_points

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for.

    Attributes:
        sensitivity: Target of *sensitive*, in (0, 1).
        specificity: Target of *specific*, in (0, 1).
        split: Of the table: pictures that no network was trained on.
        points_only: Keep temperature and bias.
        study_by: The column that tells which pictures are one study.
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
        points: By name.
        pictures, positives: What they were fitted on.
        studies: Those for whole studies. Older ones go in any case: they hold for other
            probabilities, or for another site.
        together: The regions, this one among them, on whose pictures temperature and bias were
            fitted; none where they were not fitted.
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
    """Write a weights folder whose specialists have thresholds of this table's pictures.

    An ensemble gets them as any other does; its members stay bit for bit.

    Args:
        index: Table.
        weights: Folder to start from; stays as it is.
        target: New folder.
        wanted: Targets and split.
        config: Device and precision that compute the predictions.
        progress: Advanced once a picture.
        only: The one region whose specialist changes; None for all.

    Returns:
        What is new, by region.

    Raises:
        ConfigError: The table has no labelled picture of any region in that split, or its
            labels mean something else than the networks' do.
        UsageError: The target is the source, or holds something already.
        BundleError: The weights are damaged, or one fused graph.
    """
    refuse_used(target)
    read_staged(weights)
    # The first look alone: what is fitted here says nothing of closer ones.
    networks = load_bundles(weights, config.model_copy(update={"looks": 1}))
    if only is not None:
        networks = replace(networks, fracture={only: networks.fracture[only]})
    asked = (part for stage in networks.fracture.values() for part in stage.networks)
    trunks = (trunk.spec for trunk in networks.trunks.values())
    tell_seen(index, wanted.split, [*trunks, *(part.spec for part in asked)])
    samples = labelled(index, wanted.split, only)
    for stage in networks.fracture.values():
        kinds = {s.label_kind for s in samples} - {stage.spec.target}
        if kinds:
            raise ConfigError(
                f"{index.source}: labels say {', '.join(sorted(kinds))}, bundle "
                f"{stage.spec.name} says {stage.spec.target}"
            )
    table, _ = predict(samples, index.source.parent, networks, config, progress)
    # What was refused when it was read has no numbers.
    answered = [f"fracture_logit_{region}" for region in networks.fracture]
    table = table[table[answered].notna().all(axis=1)]
    chosen: dict[str, pd.DataFrame] = {}
    for region in networks.fracture:
        rows = table if region == ANY_REGION else table[table[f"view_{region}"] == 1]
        positives = int(rows["label"].sum())
        if min(positives, len(rows) - positives) >= FEWEST:
            chosen[region] = rows
            continue
        log.warning(
            "%s: %d positive and %d other pictures in split %s, wanted %d of each: its "
            "thresholds stay", region, positives, len(rows) - positives, wanted.split, FEWEST,
        )  # fmt: skip
    found = _fit(chosen, networks, wanted, index)
    if not found:
        raise ConfigError(
            f"{index.source}: too few labelled pictures in split {wanted.split}, wanted "
            f"{FEWEST} positive and {FEWEST} others of a region"
        )
    _rewrite(weights, target, {networks.fracture[r].spec.name: new for r, new in found.items()})
    return found


def labelled(index: Index, split: Split, only: str | None) -> list[Sample]:
    """The labelled pictures of a split; those that show the region, if it is one."""
    samples = [sample for sample in index.of(split) if sample.label is not None]
    return [sample for sample in samples if only not in REGIONS or sample.shows(str(only))]


def _fit(
    chosen: Mapping[str, pd.DataFrame], networks: Weights, wanted: Wanted, index: Index
) -> dict[str, Recalibrated]:
    """One calibration for those that are alike, thresholds for each."""
    labels = {region: rows["label"].to_numpy(np.float32) for region, rows in chosen.items()}
    logits = {
        region: rows[f"fracture_logit_{region}"].to_numpy(np.float32)
        for region, rows in chosen.items()
    }
    fitted: dict[str, tuple[float, float]] = {}
    together: dict[str, tuple[str, ...]] = {}
    for family in [] if wanted.points_only else _alike(chosen, networks):
        together |= dict.fromkeys(family, tuple(family))
        parts = (np.concatenate([part[region] for region in family]) for part in (labels, logits))
        fitted |= dict.fromkeys(family, fit_calibration(*parts))
    source = f"split {wanted.split} of {index.source.name} ({index.digest[:12]})"
    found = {}
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
        found[region] = Recalibrated(
            *pair, points, len(scores), positives, studies, together.get(region, ())
        )
    return found


def _alike(regions: Iterable[str], networks: Weights) -> list[list[str]]:
    """Regions whose specialists share a calibration; see :mod:`stages.finished` for why they do.

    One for all regions, and an ensemble, whose log odds are of calibrated probabilities, differ
    from the others: each has a calibration of its own.
    """
    families: dict[str, list[str]] = {}
    for region in regions:
        own = networks.fracture[region].spec
        single = region != ANY_REGION and not isinstance(own, EnsembleSpec)
        families.setdefault("" if single else region, []).append(region)
    return list(families.values())


def _rewrite(weights: Path, target: Path, found: Mapping[str, Recalibrated]) -> None:
    """Copy a weights folder, the specialists (by bundle name) with their new contract.

    Of what people wrote beside the bundles the notice goes along; cards and figures would be
    those of the old thresholds.
    """
    entries: dict[tuple[str, Precision], ManifestEntry] = {}
    for entry in read_staged(weights).bundles:
        content = read_verified(weights, entry)
        if entry.name in found:
            content = _with_contract(content, entry.file, found[entry.name])
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
        held = [i for i in graph.graph.initializer if i.name == name]
        if len(held) != 1:
            raise ConfigError(f"{file}: no {name} in the graph, wanted one exported by fxpipe")
        kind = numpy_helper.to_array(held[0]).dtype
        held[0].CopyFrom(numpy_helper.from_array(np.array([value], kind), name))
    changes: dict[str, Any] = {
        "temperature": (new.temperature,),
        "bias": (new.bias,),
        "operating_points": new.points,
        "study_points": new.studies.points,
    }
    if isinstance(spec, FractureSpec):
        changes["closer"] = None  # fitted to other pictures
    return stamp(graph, spec.changed(**changes))
