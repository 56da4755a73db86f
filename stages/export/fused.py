"""``fxpipe export --fused``: all stages of a weights folder in one graph; does not need torch.

The fused folder is opened like the original one by ``fxpipe run`` and compared with it; it is
written to the target only if the comparison passes.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from pipeline.bundle import EnsembleSpec, FractureSpec, JudgeSpec, Precision, RegionSpec, TrunkSpec
from pipeline.config import RunConfig, cores
from pipeline.domain import Array, StageOutput
from pipeline.errors import BundleError, ConfigError, ExportRefusedError, ImageError
from pipeline.fused_contract import FusedSpec, Part, columns_of
from pipeline.io import decode, discover, read_file
from pipeline.preprocess import PreprocessSpec, preprocess
from pipeline.progress import Progress
from pipeline.runtime.network import Batch
from pipeline.runtime.session import Weights, load_bundles
from pipeline.weights.manifest import (
    ManifestEntry,
    read_staged,
    read_verified,
    refresh_manifest,
    write_manifest,
)

from ..bundles.writer import NewFolder, keep_notice, refuse_used
from .graph_compose import Parts, fuse_graphs, grid
from .triton import MODEL, write_repository

log = logging.getLogger(__name__)

NAME = "fused"
PICTURES = 100
"""Maximum number of pictures to compare."""
BATCH = 8
"""Pictures in a batch; each is also processed alone."""
LIMIT = {Precision.FP32: 1e-3, Precision.INT8: 1e-3, Precision.FP16: 0.01}
"""Largest |Δ| of a probability, of a density, and of the evidence as a share of its largest value.
A decision may differ only if the probability or density is closer to the threshold than this."""


@dataclass(frozen=True, slots=True)
class Order:
    """The requested output.

    Attributes:
        precisions: Precisions to fuse; empty for all in which the folder is complete.
        pictures: Folder of pictures for the comparison.
        target: New weights folder.
        triton: Model repository of Triton Inference Server that receives the model; or None.
    """

    precisions: tuple[Precision, ...]
    pictures: Path
    target: Path
    triton: Path | None = None


@dataclass(frozen=True, slots=True)
class Parity:
    """Comparison of a fused graph with its original stages.

    Attributes:
        precision: Precision of both.
        pictures: Number of compared pictures.
        difference: Largest |Δprobability| between the two.
        alone: Largest |Δprobability| of the fused graph between batched and single pictures.
        evidence: Largest |Δevidence|, as a share of the largest |evidence| of the stage.
        density: Largest |Δdensity|; 0 without a density gate.
        decisions: Total number of applied thresholds.
        flips: Different decisions where the stage is at least ``limit`` from the threshold.
        limit: See :data:`LIMIT`.
    """

    precision: Precision
    pictures: int
    difference: float
    alone: float
    evidence: float
    density: float
    decisions: int
    flips: int
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the graph may be written; NaN never passes."""
        differences = (self.difference, self.alone, self.evidence, self.density)
        return self.flips == 0 and all(value <= self.limit for value in differences)

    def __str__(self) -> str:
        return (
            f"{NAME} {self.precision}: {self.pictures} pictures, |Δprobability| max "
            f"{self.difference:.5f} to the stages, {self.alone:.5f} between batched and "
            f"single pictures, |Δevidence| max {self.evidence:.5f} of the largest, |Δdensity| max "
            f"{self.density:.5f} (limit {self.limit}); "
            f"{self.decisions} decisions, {self.flips} flips outside that margin: "
            f"{'passed' if self.passed else 'REFUSED'}"
        )


def refuse_targets(order: Order) -> None:
    """Refuse to overwrite existing files.

    Raises:
        UsageError: A target already contains files.
    """
    refuse_used(order.target)
    if order.triton is not None:
        refuse_used(order.triton / MODEL)


def fuse_weights(weights: Path, order: Order, progress: Progress) -> list[Parity]:
    """Write a weights folder with one fused graph, or refuse.

    Args:
        weights: Folder with stages; not changed.
        order: The requested output.
        progress: Advanced once per precision.

    Returns:
        The comparison for each precision.

    Raises:
        UsageError: A target already contains files.
        BundleError: The folder is damaged, contains a fused graph, or cannot be fused.
        ConfigError: No picture can be read.
        ExportRefusedError: The fused graph differs from the stages.
    """
    refuse_targets(order)
    manifest = read_staged(weights)
    precisions = order.precisions or manifest.precisions
    if not precisions:
        raise BundleError(f"{weights}: no precision includes every bundle, expected one")
    rows: list[Parity] = []
    pictures: dict[PreprocessSpec, list[Array]] = {}
    with TemporaryDirectory() as staging:
        folder = NewFolder(Path(staging) / NAME)
        folder.place.mkdir()
        for precision in precisions:
            # Gate off: densities are compared but refuse nothing. A fused graph looks once.
            config = RunConfig(
                device="cpu", precision=precision, intra_op_threads=cores(), gate="off", looks=1
            )
            staged = load_bundles(weights, config)
            _refuse_ensembles(staged)
            canvas = _one_canvas(staged)
            if canvas not in pictures:
                pictures[canvas] = read_pictures(order.pictures, canvas)
            _fuse(weights, manifest.of(precision), staged, folder)
            write_manifest(folder.place, folder.entries)
            rows.append(compare(staged, load_bundles(folder.place, config), pictures[canvas]))
            progress.advance()
        _gate(rows)
        keep_notice(weights, folder.place)
        refresh_manifest(folder.place)
        shutil.copytree(folder.place, order.target, dirs_exist_ok=True)
    if order.triton is not None:
        write_repository(order.target, _served(precisions), BATCH, order.triton)
    return rows


def _served(precisions: Sequence[Precision]) -> Precision:
    """The precision for a server: fp16 if available, because servers have GPUs."""
    order = (Precision.FP16, Precision.FP32, Precision.INT8)
    return next(precision for precision in order if precision in precisions)


def _refuse_ensembles(staged: Weights) -> None:
    """Refuse ensembles, whose members may differ in preprocessing and heatmap.

    Raises:
        BundleError: There is an ensemble.
    """
    for stage in staged.stages:
        if isinstance(stage.spec, EnsembleSpec):
            raise BundleError(
                f"bundle {stage.spec.name} is an ensemble of {', '.join(stage.spec.members)}, "
                "expected single networks in a fused graph",
                "fuse a weights folder without ensembles",
            )


def _one_canvas(staged: Weights) -> PreprocessSpec:
    """The common preprocessing of all stages.

    Raises:
        BundleError: The stages differ in preprocessing.
    """
    canvases: dict[PreprocessSpec, str] = {}
    for network in staged.networks:
        canvases.setdefault(network.spec.preprocess, network.bundle)
    if len(canvases) > 1:
        listed = "; ".join(f"{name}: {c.model_dump_json()}" for c, name in canvases.items())
        raise BundleError(
            f"the stages have different preprocessing ({listed}), expected the same: a fused graph "
            "has one input image",
            "train all stages with the same [preprocess]",
        )
    return next(iter(canvases))


def _fuse(
    weights: Path, entries: Sequence[ManifestEntry], staged: Weights, folder: NewFolder
) -> None:
    """Fuse the graphs of one precision."""
    specs = {network.bundle: network.spec for network in staged.networks}
    parts = {
        entry.name: (spec, onnx.load_from_string(read_verified(weights, entry)))
        for entry in entries
        if isinstance(spec := specs[entry.name], TrunkSpec | RegionSpec | FractureSpec)
    }
    stages = _contracts(staged, parts)
    fused = FusedSpec(
        name=NAME,
        precision=staged.precision,
        preprocess=stages[0].preprocess,
        stages=stages,
        columns=columns_of(stages),
        sources={entry.name: entry.sha256 for entry in entries},
    )
    folder.add(fused, NAME, staged.precision, fuse_graphs(parts, fused))


def _contracts(staged: Weights, parts: Parts) -> tuple[Part, ...]:
    """The contract of each stage in the graph, in the order of the columns."""
    specs = (stage.spec for stage in staged.fracture.values())
    judges = [spec for spec in specs if isinstance(spec, FractureSpec)]
    grids = {spec.name: _grid(spec, parts) for spec in judges}
    mapped = len(set(grids.values())) == 1 and None not in grids.values()
    if not mapped and any(grids.values()):
        listed = ", ".join(f"{name} {cells or 'none'}" for name, cells in grids.items())
        log.warning("no fracture_evidence: the specialists' maps differ in size (%s)", listed)
    if any(spec.closer for spec in judges):
        log.warning("a fused graph looks once: the specialists' closer looks are omitted")
    if any(spec.types for spec in judges):
        log.warning("a fused graph has no fracture types: those of the specialists are omitted")
    routers = [] if staged.region is None else [staged.region.spec]
    complete = {"input": "image", "trunk": None}
    single_look = {**complete, "heatmap": mapped, "closer": None, "types": None}
    return (
        *(s.changed(**complete, heatmap=_grid(s, parts) is not None) for s in routers),
        *(spec.changed(**single_look) for spec in judges),
    )


def _grid(spec: Part, parts: Parts) -> tuple[int, int] | None:
    return grid(parts[spec.name][1]) if spec.heatmap else None


def read_pictures(folder: Path, canvas: PreprocessSpec) -> list[Array]:
    """Read the first :data:`PICTURES` readable pictures of a folder, (1, H, W) float32 each.

    Raises:
        ConfigError: There is no readable picture.
    """
    pictures = list(islice(_readable(folder, canvas), PICTURES))
    if not pictures:
        raise ConfigError(f"{folder}: no readable picture, expected radiographs to compare")
    return pictures


def _readable(folder: Path, canvas: PreprocessSpec) -> Iterator[Array]:
    for path in discover(folder):
        try:
            content, sha256 = read_file(path)
            for image in decode(content, path, sha256):
                yield preprocess(image.pixels, canvas)[0]
        except ImageError as error:
            log.debug("not compared: %s", error)


def compare(staged: Weights, fused: Weights, pictures: Sequence[Array]) -> Parity:
    """Run both on the same pictures, and the fused graph also on each picture alone.

    Args:
        staged: The stages.
        fused: The fused graph.
        pictures: (1, H, W) float32 each.
    """
    limit = LIMIT[staged.precision]
    (canvas,) = staged.preprocessings
    differences: list[tuple[float, ...]] = []
    flips = decisions = 0
    for start in range(0, len(pictures), BATCH):
        chosen = [{canvas: picture} for picture in pictures[start : start + BATCH]]
        by_stages, together = Batch(chosen, staged.trunks), Batch(chosen, {})
        singles = [Batch([picture], {}) for picture in chosen]
        for stage, inside in zip(staged.stages, fused.stages, strict=True):
            expected = stage.look(by_stages, evidence=True)
            actual = inside.look(together, evidence=True)
            single = np.concatenate([inside.look(batch).probabilities for batch in singles])
            p, q = expected.probabilities, actual.probabilities
            differences.append(
                (
                    _largest(p, q),
                    _largest(single, q),
                    _evidence(expected, actual),
                    _density(expected, actual),
                )
            )
            for value, other, threshold in _decisions(stage.spec, expected, actual):
                differ = (value >= threshold) != (other >= threshold)
                flips += int((differ & (np.abs(value - threshold) >= limit)).sum())
                decisions += len(p)
    # max() could drop NaN.
    difference, alone, evidence, density = np.max(differences, axis=0).tolist()
    return Parity(
        staged.precision, len(pictures), difference, alone, evidence, density, decisions, flips,
        limit,
    )  # fmt: skip


def _largest(a: Array, b: Array) -> float:
    return float(np.abs(a - b).max())


def _evidence(expected: StageOutput, actual: StageOutput) -> float:
    """Largest |Δevidence| as a share of the largest |evidence|; 0 if either has none."""
    if expected.evidence is None or actual.evidence is None:
        return 0.0
    return _largest(expected.evidence, actual.evidence) / float(
        np.abs(expected.evidence).max() or 1.0
    )


def _density(expected: StageOutput, actual: StageOutput) -> float:
    """Largest |Δdensity|; 0 if neither has a density, NaN if only one has."""
    if expected.density is None and actual.density is None:
        return 0.0
    if expected.density is None or actual.density is None:
        return float("nan")
    return _largest(expected.density, actual.density)


def _decisions(
    spec: RegionSpec | JudgeSpec, expected: StageOutput, actual: StageOutput
) -> Iterator[tuple[Array, Array, float]]:
    """Yield the values of both, and the threshold, for every decision of a stage."""
    for column, label in enumerate(spec.labels):
        pair = expected.probabilities[:, column], actual.probabilities[:, column]
        for edge in _edges(spec, label):
            yield *pair, edge
    gate = spec.density if isinstance(spec, RegionSpec) else None
    if gate and expected.density is not None and actual.density is not None:
        yield expected.density, actual.density, gate.threshold


def _edges(spec: RegionSpec | JudgeSpec, label: str) -> list[float]:
    """The decision thresholds of a label."""
    if isinstance(spec, RegionSpec):
        return [spec.route_thresholds[label]]
    points = (*spec.operating_points.values(), *spec.study_points.values())
    return sorted({edge for p in points for edge in (p.threshold, p.doubt_below)})


def _gate(rows: Sequence[Parity]) -> None:
    """Check that every comparison passed.

    Raises:
        ExportRefusedError: A comparison failed; all failed ones are listed.
    """
    refused = [str(row) for row in rows if not row.passed]
    if refused:
        raise ExportRefusedError(
            "not fused, nothing was written:\n  " + "\n  ".join(refused),
            "omit the precision (--precision)",
        )
