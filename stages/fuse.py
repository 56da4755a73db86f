"""``fxpipe export --fused``: every stage of a weights folder in one graph, gated; needs no torch.

The fused folder is compared with the one that it was made of as ``fxpipe run`` would open either,
and only then put in its place.
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

from pipeline.bundle import (
    EnsembleSpec,
    FractureSpec,
    JudgeSpec,
    Precision,
    RegionSpec,
    TrunkSpec,
)
from pipeline.config import RunConfig, cores
from pipeline.domain import Array, StageOutput
from pipeline.errors import BundleError, ConfigError, ExportRefusedError, ImageError
from pipeline.fused import FusedSpec, Part, columns_of
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

from .compose import Parts, fuse_graphs, grid
from .new_folder import NewFolder, keep_notice, refuse_used
from .triton import MODEL, write_repository

log = logging.getLogger(__name__)

NAME = "fused"
PICTURES = 100
"""At most so many are compared."""
BATCH = 8
"""Pictures in a batch; each is looked at alone too."""
LIMIT = {Precision.FP32: 1e-3, Precision.INT8: 1e-3, Precision.FP16: 0.01}
"""Largest |Δ| of a probability, of a density, and of the evidence as a share of its largest value.
A decision may differ only where the probability or density is nearer than this to the threshold."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is wanted.

    Attributes:
        precisions: Which are fused; none for all in which the folder is complete.
        pictures: Folder of pictures for the comparison.
        target: New weights folder.
        triton: Model repository of Triton Inference Server, in which the model is new; or None.
    """

    precisions: tuple[Precision, ...]
    pictures: Path
    target: Path
    triton: Path | None = None


@dataclass(frozen=True, slots=True)
class Parity:
    """One fused graph against the stages that it was made of.

    Attributes:
        precision: Of both.
        pictures: How many were compared.
        difference: Largest |Δprobability| between the two.
        alone: Largest |Δprobability| of the fused graph between a picture in a batch and alone.
        evidence: Largest |Δevidence|, as a share of the largest |evidence| of the stage.
        density: Largest |Δdensity|; 0 without a density gate.
        decisions: How many thresholds were applied in all.
        flips: Decisions that differ where the stage is at least ``limit`` from the threshold.
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
        """Whether the graph may be written; what is no number never passes."""
        differences = (self.difference, self.alone, self.evidence, self.density)
        return self.flips == 0 and all(value <= self.limit for value in differences)

    def __str__(self) -> str:
        return (
            f"{NAME} {self.precision}: {self.pictures} pictures, |Δprobability| max "
            f"{self.difference:.5f} to the stages, {self.alone:.5f} to itself one by one, "
            f"|Δevidence| max {self.evidence:.5f} of the largest, |Δdensity| max "
            f"{self.density:.5f} (limit {self.limit}); "
            f"{self.decisions} decisions, {self.flips} flips outside that margin: "
            f"{'passed' if self.passed else 'REFUSED'}"
        )


def refuse_targets(order: Order) -> None:
    """Refuse to write where there is something.

    Raises:
        UsageError: There is.
    """
    refuse_used(order.target)
    if order.triton is not None:
        refuse_used(order.triton / MODEL)


def fuse_weights(weights: Path, order: Order, progress: Progress) -> list[Parity]:
    """Write a weights folder with one graph, or refuse.

    Args:
        weights: Folder with stages; stays as it is.
        order: What is wanted.
        progress: Advanced once a precision.

    Returns:
        The comparison in every precision.

    Raises:
        UsageError: A target holds something already.
        BundleError: The folder is damaged, holds a fused graph, or stages that cannot be fused.
        ConfigError: No picture can be read.
        ExportRefusedError: The fused graph answers otherwise than the stages.
    """
    refuse_targets(order)
    manifest = read_staged(weights)
    precisions = order.precisions or manifest.precisions
    if not precisions:
        raise BundleError(f"{weights}: no precision in which every bundle is there, wanted one")
    rows: list[Parity] = []
    pictures: dict[PreprocessSpec, list[Array]] = {}
    with TemporaryDirectory() as staging:
        folder = NewFolder(Path(staging) / NAME)
        folder.place.mkdir()
        for precision in precisions:
            # Densities are compared like everything else; nobody is refused. One graph looks once.
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
    """The one for a server: fp16 if it is there, for a server has a GPU."""
    order = (Precision.FP16, Precision.FP32, Precision.INT8)
    return next(precision for precision in order if precision in precisions)


def _refuse_ensembles(staged: Weights) -> None:
    """Members may look at pictures, and lay their maps, in ways of their own.

    Raises:
        BundleError: There is an ensemble.
    """
    for stage in staged.stages:
        if isinstance(stage.spec, EnsembleSpec):
            raise BundleError(
                f"bundle {stage.spec.name} is an ensemble of {', '.join(stage.spec.members)}, "
                "wanted single networks in a fused graph",
                "fuse a weights folder without ensembles",
            )


def _one_canvas(staged: Weights) -> PreprocessSpec:
    """The preprocessing that all stages share.

    Raises:
        BundleError: They do not.
    """
    canvases: dict[PreprocessSpec, str] = {}
    for network in staged.networks:
        canvases.setdefault(network.spec.preprocess, network.bundle)
    if len(canvases) > 1:
        told = "; ".join(f"{name}: {canvas.model_dump_json()}" for canvas, name in canvases.items())
        raise BundleError(
            f"the stages want different preprocessing ({told}), wanted one: a fused graph takes "
            "one image",
            "train all stages with the same [preprocess]",
        )
    return next(iter(canvases))


def _fuse(
    weights: Path, entries: Sequence[ManifestEntry], staged: Weights, folder: NewFolder
) -> None:
    """Make the graph of one precision."""
    specs = {network.bundle: network.spec for network in staged.networks}
    parts = {
        entry.name: (own, onnx.load_from_string(read_verified(weights, entry)))
        for entry in entries
        if isinstance(own := specs[entry.name], TrunkSpec | RegionSpec | FractureSpec)
    }
    stages = _contracts(staged, parts)
    spec = FusedSpec(
        name=NAME,
        precision=staged.precision,
        preprocess=stages[0].preprocess,
        stages=stages,
        columns=columns_of(stages),
        sources={entry.name: entry.sha256 for entry in entries},
    )
    folder.add(spec, NAME, staged.precision, fuse_graphs(parts, spec))


def _contracts(staged: Weights, parts: Parts) -> tuple[Part, ...]:
    """The contract of each stage inside the graph, in the order of the columns."""
    given = (stage.spec for stage in staged.fracture.values())
    judges = [spec for spec in given if isinstance(spec, FractureSpec)]
    grids = {spec.name: _grid(spec, parts) for spec in judges}
    mapped = len(set(grids.values())) == 1 and None not in grids.values()
    if not mapped and any(grids.values()):
        told = ", ".join(f"{name} {cells or 'none'}" for name, cells in grids.items())
        log.warning("no fracture_evidence: the specialists' maps are not alike (%s)", told)
    if any(spec.closer for spec in judges):
        log.warning("a fused graph looks once: the specialists' closer looks are left out")
    if any(spec.types for spec in judges):
        log.warning("a fused graph tells no types of fracture: the specialists' are left out")
    routers = [] if staged.region is None else [staged.region.spec]
    alone = {"input": "image", "trunk": None}
    once = {**alone, "heatmap": mapped, "closer": None, "types": None}
    return (
        *(s.changed(**alone, heatmap=_grid(s, parts) is not None) for s in routers),
        *(spec.changed(**once) for spec in judges),
    )


def _grid(spec: Part, parts: Parts) -> tuple[int, int] | None:
    return grid(parts[spec.name][1]) if spec.heatmap else None


def read_pictures(folder: Path, canvas: PreprocessSpec) -> list[Array]:
    """The first :data:`PICTURES` pictures of a folder that can be read, (1, H, W) float32 each.

    Raises:
        ConfigError: There is none.
    """
    pictures = list(islice(_readable(folder, canvas), PICTURES))
    if not pictures:
        raise ConfigError(f"{folder}: no picture that can be read, wanted radiographs to compare")
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
    """Ask both about the same pictures, and the fused graph about each alone.

    Args:
        staged: The stages.
        fused: The same in one graph.
        pictures: (1, H, W) float32 each.
    """
    limit = LIMIT[staged.precision]
    (canvas,) = staged.preprocessings
    differences: list[tuple[float, ...]] = []
    flips = decisions = 0
    for start in range(0, len(pictures), BATCH):
        chosen = [{canvas: picture} for picture in pictures[start : start + BATCH]]
        by_stages, together = Batch(chosen, staged.trunks), Batch(chosen, {})
        singles = [Batch([one], {}) for one in chosen]
        for stage, inside in zip(staged.stages, fused.stages, strict=True):
            wanted = stage.look(by_stages, evidence=True)
            found = inside.look(together, evidence=True)
            single = np.concatenate([inside.look(one).probabilities for one in singles])
            p, q = wanted.probabilities, found.probabilities
            differences.append(
                (_largest(p, q), _largest(single, q), _mapped(wanted, found), _dense(wanted, found))
            )
            for one, other, threshold in _decisions(stage.spec, wanted, found):
                differ = (one >= threshold) != (other >= threshold)
                flips += int((differ & (np.abs(one - threshold) >= limit)).sum())
                decisions += len(p)
    # Not max(), which may lose what is no number.
    difference, alone, evidence, density = np.max(differences, axis=0).tolist()
    return Parity(
        staged.precision, len(pictures), difference, alone, evidence, density, decisions, flips,
        limit,
    )  # fmt: skip


def _largest(one: Array, other: Array) -> float:
    return float(np.abs(one - other).max())


def _mapped(wanted: StageOutput, found: StageOutput) -> float:
    """Largest |Δevidence| as a share of the largest |evidence|; 0 where one has none."""
    if wanted.evidence is None or found.evidence is None:
        return 0.0
    return _largest(wanted.evidence, found.evidence) / float(np.abs(wanted.evidence).max() or 1.0)


def _dense(wanted: StageOutput, found: StageOutput) -> float:
    """Largest |Δdensity|; 0 where neither has one, no number where only one has."""
    if wanted.density is None and found.density is None:
        return 0.0
    if wanted.density is None or found.density is None:
        return float("nan")
    return _largest(wanted.density, found.density)


def _decisions(
    spec: RegionSpec | JudgeSpec, wanted: StageOutput, found: StageOutput
) -> Iterator[tuple[Array, Array, float]]:
    """What both say, and the threshold, of every decision that a stage makes."""
    for column, label in enumerate(spec.labels):
        said = wanted.probabilities[:, column], found.probabilities[:, column]
        for edge in _edges(spec, label):
            yield *said, edge
    gate = spec.density if isinstance(spec, RegionSpec) else None
    if gate and wanted.density is not None and found.density is not None:
        yield wanted.density, found.density, gate.threshold


def _edges(spec: RegionSpec | JudgeSpec, label: str) -> list[float]:
    """The probabilities at which something is decided on a label."""
    if isinstance(spec, RegionSpec):
        return [spec.route_thresholds[label]]
    points = (*spec.operating_points.values(), *spec.study_points.values())
    return sorted({edge for p in points for edge in (p.threshold, p.doubt_below)})


def _gate(rows: Sequence[Parity]) -> None:
    """Let nothing through that differs.

    Raises:
        ExportRefusedError: With every row that did not pass.
    """
    refused = [str(row) for row in rows if not row.passed]
    if refused:
        raise ExportRefusedError(
            "not fused, nothing was written:\n  " + "\n  ".join(refused),
            "leave the precision out (--precision)",
        )
