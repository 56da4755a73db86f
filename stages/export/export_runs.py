"""Export of finished runs to a weights folder, in all precisions, after the parity check."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from pydantic import Field
from torch import nn

from pipeline.atomic import write_atomic
from pipeline.bundle import (
    MANIFEST_NAME,
    BundleSpec,
    CloserLooks,
    FractureSpec,
    FractureTypes,
    Kind,
    Precision,
    RegionSpec,
    TrunkSpec,
)
from pipeline.config import Settings
from pipeline.domain import Array, StageOutput
from pipeline.errors import ConfigError
from pipeline.preprocess import PreprocessSpec
from pipeline.progress import Progress
from pipeline.runtime.closer_looks import Closer
from pipeline.runtime.network import Batch, Network
from pipeline.runtime.network import Trunk as OpenedTrunk
from pipeline.runtime.providers import open_session
from pipeline.weights.manifest import ManifestEntry, read_staged, write_manifest

from ..bundles.stamp import stamp
from ..data.dataset import read_array
from ..network.checkpoint import CONFIG
from ..network.density import DensityGate
from ..network.model import Trunk, digest
from ..samples import Index, Sample
from ..stage_spec import StageSpec
from ..training.finished_run import Run
from ..training.run import RESULT
from .contracts import stage_contract, trunk_contract
from .exported_head import Head
from .onnx_export import derive, to_onnx
from .parity import BATCH, Parity, compare, gate, reference

log = logging.getLogger(__name__)


class ExportConfig(Settings):
    """Settings of the export.

    Attributes:
        precisions: Precisions to write; float32 is always built, as an intermediate reference.
        pictures: Real pictures outside the training split on which each stage is compared.
        closer_pictures: Maximum number of them to compare also in all looks of a specialist with
            closer looks: each costs several forward passes.
        calibration_pictures: Training pictures that determine the ranges of int8.
    """

    precisions: tuple[Precision, ...] = (Precision.INT8, Precision.FP16)
    pictures: int = Field(default=200, ge=1)
    closer_pictures: int = Field(default=48, ge=1)
    calibration_pictures: int = Field(default=128, ge=1)


@dataclass(slots=True)
class Built:
    """Bundles before the parity check.

    Attributes:
        graphs: Float32 graph of each bundle, by name.
        bundles: Contract and bytes, by name and precision.
        trunks: Name of each trunk, new or in the weights folder, by identity.
    """

    trunks: dict[str, str]
    graphs: dict[str, onnx.ModelProto] = field(default_factory=dict)
    bundles: dict[tuple[str, Precision], tuple[BundleSpec, bytes]] = field(default_factory=dict)

    def add(
        self, spec: TrunkSpec | RegionSpec | FractureSpec, module: nn.Module, arrays: Array
    ) -> None:
        """Build one bundle.

        Args:
            spec: Contract of the bundle.
            module: Trunk or head, in evaluation mode.
            arrays: (N, C, H, W) float32 inputs from real pictures, to calibrate int8.
        """
        if spec.name not in self.graphs:
            self.graphs[spec.name] = to_onnx(module, arrays[:1], spec.input, spec.outputs)
        singles = (arrays[i : i + 1] for i in range(len(arrays)))
        graph = derive(self.graphs[spec.name], spec.input, singles, spec.precision)
        self.bundles[spec.name, spec.precision] = spec, stamp(graph, spec)

    def trunk_name(self, identity: str, proposed: str) -> str:
        """The name of a trunk: the existing one, or the proposed one, removed from others."""
        if identity not in self.trunks:
            self.trunks = {i: name for i, name in self.trunks.items() if name != proposed}
            self.trunks[identity] = proposed
        return self.trunks[identity]

    def opened(self, name: str, precision: Precision) -> tuple[str, Any]:
        """Digest and session of a bundle on the CPU, opened as by ``fxpipe run``."""
        _, content = self.bundles[name, precision]
        session, _ = open_session(content, "cpu", 0, f"{name} ({precision})")
        return hashlib.sha256(content).hexdigest(), session


def find_runs(folder: Path) -> list[Path]:
    """Find the runs: the folder itself, or every finished run in it, the region run first.

    Raises:
        ConfigError: There is none.
    """
    if (folder / CONFIG).is_file():
        return [folder]
    # A cross-validation also has a result, but is not a run.
    runs = [path.parent for path in sorted(folder.glob(f"*/{RESULT}"))]
    runs = [run for run in runs if (run / CONFIG).is_file()]
    if not runs:
        raise ConfigError(
            f"{folder}: contains no finished run", "train one with `fxpipe train-stage`"
        )
    return sorted(runs, key=lambda run: json.loads((run / CONFIG).read_text())["kind"] != "region")


def export_runs(
    runs: Sequence[Run], index: Index, weights: Path, config: ExportConfig, progress: Progress
) -> list[Parity]:
    """Export runs to a weights folder, or refuse all of them.

    Args:
        runs: A shared trunk is written once.
        index: The table; training pictures calibrate int8, others are compared.
        weights: Changed only if all comparisons pass.
        config: Precisions and numbers of pictures.
        progress: Advanced once per stage and precision.

    Returns:
        The comparison of every stage in every precision.

    Raises:
        ConfigError: The table has no pictures for a run.
        ExportRefusedError: An exported stage decides differently from the trained one.
    """
    built = Built({e.trunk: e.name for e in _listed(weights) if e.trunk and e.kind is Kind.TRUNK})
    rows: list[Parity] = []
    for run in runs:
        for row in _export(run, index, built, config):
            log.info("%s", row)
            rows.append(row)
            progress.advance()
    gate(rows)
    _write(weights, built, config.precisions, {name for run in runs for name in run.contracts})
    return rows


def _export(run: Run, index: Index, built: Built, config: ExportConfig) -> Iterator[Parity]:
    """Build the bundles of a run; yield the comparison of each precision."""
    training, others = _pictures(run.stage, index, config)
    calibration = np.stack([read_array(sample, run.preprocess) for sample in training])
    images = np.stack([read_array(sample, run.preprocess) for sample in others])
    expected = reference(run, images)
    if non_finite := int((~np.isfinite(expected.logits)).any(1).sum()):
        raise ConfigError(
            f"{run.folder}: the trained network outputs NaN or infinity for {non_finite} of "
            f"{len(images)} pictures, expected finite numbers",
            "train again, with a lower optim.lr",
        )

    closer = _closer_pictures(run, others, config)
    all_looks: StageOutput | None = None
    cut = run.described["cut"]
    whole = run.network.position(cut) == 0
    head = _head(run, cut)
    trunk = None if whole else Trunk(run.network, cut).eval()
    identity = None if trunk is None else _identity(run, trunk)
    for precision in dict.fromkeys((Precision.FP32, *config.precisions)):
        ranges, compared = calibration, images
        if trunk is not None and identity is not None:
            name = built.trunk_name(identity, _trunk_name(run))
            trunk_spec = trunk_contract(run, index, name, precision, identity)
            if (name, precision) not in built.bundles:
                built.add(trunk_spec, trunk, calibration)
            opened = OpenedTrunk(trunk_spec, *built.opened(name, precision))
            compared = _batched(opened.features, images)
            # Only int8 needs ranges; other precisions need one picture as an example of the shape.
            needed = calibration if precision is Precision.INT8 else calibration[:1]
            ranges = _batched(opened.features, needed)
        spec = stage_contract(run, index, precision, identity)
        built.add(spec, head, ranges)
        stage = Network(spec, *built.opened(spec.name, precision))
        answers = [stage.predict(compared[i : i + BATCH]) for i in range(0, len(compared), BATCH)]
        yield compare(spec, expected, _joined(answers))
        if isinstance(spec, FractureSpec) and spec.closer is not None:
            trunks = {} if identity is None else {identity: opened}
            closer_stage = Closer(Network(spec, *built.opened(spec.name, precision)), spec.closer)
            batches = (closer[i : i + BATCH] for i in range(0, len(closer), BATCH))
            looks = _joined([closer_stage.look(Batch(batch, trunks)) for batch in batches])
            # If two looks are equal, either may decide; types were compared for single looks above.
            looks = replace(looks, types=None)
            # float32 is first, and was compared with the trained network above.
            all_looks = all_looks or looks
            yield replace(
                compare(closer_stage.spec, all_looks, looks),
                name=f"{spec.name} in {closer_stage.count} looks",
            )


def _closer_pictures(
    run: Run, samples: Sequence[Sample], config: ExportConfig
) -> list[dict[PreprocessSpec, Array]]:
    """Inputs of a specialist with closer looks for each picture; empty for any other stage."""
    content = run.result.get("closer")
    if content is None:
        return []
    canvases = run.preprocess, CloserLooks.model_validate(content).canvas
    chosen = _evenly(samples, config.closer_pictures)
    return [{canvas: read_array(sample, canvas) for canvas in canvases} for sample in chosen]


def _head(run: Run, cut: str) -> Head:
    """The stage after the cut, with calibration and density gate."""
    temperature, bias = (
        np.array(run.result[name], np.float32).tolist() for name in ("temperature", "bias")
    )
    gated = None if run.density is None else DensityGate(run.density)
    content = run.result.get("types")
    types = None if content is None else FractureTypes.model_validate(content)
    columns = range(len(run.stage.labels))
    return Head(run.network, cut, columns, temperature, bias, gated, types).eval()


def _joined(answers: Sequence[StageOutput]) -> StageOutput:
    """Join the outputs of several batches, without the evidence."""
    parts: dict[str, Array] = {}
    for name in ("logits", "probabilities", "density"):
        batches = [getattr(answer, name) for answer in answers]
        if batches[0] is not None:
            parts[name] = np.concatenate(batches)
    types = [answer.types for answer in answers if answer.types is not None]
    return StageOutput(answers[0].labels, **parts, types=_joined(types) if types else None)


def _identity(run: Run, trunk: Trunk) -> str:
    """Identity of the trunk's weights; restored half-precision weights keep the original one."""
    known = [spec.trunk for spec in run.contracts.values() if isinstance(spec, TrunkSpec)]
    return known[0] if known else digest(trunk, run.preprocess.model_dump_json())


def _batched(function: Callable[[Array], Array], arrays: Array) -> Array:
    return np.concatenate([function(arrays[i : i + BATCH]) for i in range(0, len(arrays), BATCH)])


def _pictures(
    stage: StageSpec, index: Index, config: ExportConfig
) -> tuple[list[Sample], list[Sample]]:
    """Pictures for the calibration of int8 and for the comparison, evenly spaced in the table.

    Raises:
        ConfigError: The table has too few pictures.
    """
    training = [sample for sample in index.of("train") if stage.selects(sample)]
    others = [s for split in ("val", "test") for s in index.of(split) if stage.selects(s)]
    if not training or not others:
        raise ConfigError(
            f"{index.source}: {len(training)} training and {len(others)} other pictures for "
            f"{stage.name}, expected at least one of each"
        )
    return _evenly(training, config.calibration_pictures), _evenly(others, config.pictures)


def _evenly(samples: Sequence[Sample], count: int) -> list[Sample]:
    chosen = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    return [samples[i] for i in chosen]


def _trunk_name(run: Run) -> str:
    """``trunk`` for the region run; a trunk with another cut or other weights has its own name."""
    return "trunk" if run.stage.kind is Kind.REGION else f"trunk-{run.stage.name}"


def _write(
    weights: Path, built: Built, precisions: Sequence[Precision], again: Collection[str]
) -> None:
    """Write the bundles and the manifest; remove bundles that no longer fit.

    Other precisions of bundles that were exported ``again`` stay, as they are the same networks.
    """
    weights.mkdir(parents=True, exist_ok=True)
    entries = {(entry.name, entry.precision): entry for entry in _listed(weights)}
    for (name, precision), (spec, content) in built.bundles.items():
        if precision not in precisions:
            continue
        file = weights / name / f"{precision}.onnx"
        file.parent.mkdir(exist_ok=True)
        write_atomic(file, content)
        entries[name, precision] = ManifestEntry(
            name=name,
            kind=spec.kind,
            precision=precision,
            trunk=spec.trunk,
            file=file.relative_to(weights).as_posix(),
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
        )
    kept = _fitting(entries, built, precisions, again)
    for key in entries.keys() - kept.keys():
        log.warning("%s: does not fit the exported bundles, removed", entries[key].file)
    write_manifest(weights, kept)
    for key in entries.keys() - kept.keys():
        (weights / entries[key].file).unlink(missing_ok=True)


def _listed(weights: Path) -> tuple[ManifestEntry, ...]:
    """Existing entries of a weights folder; empty if it is new."""
    return read_staged(weights).bundles if (weights / MANIFEST_NAME).is_file() else ()


def _region_of(name: str) -> str:
    """The region of a specialist or of an ensemble member: ``fracture-hand-2`` → ``hand``."""
    return name.split("-")[1] if "-" in name else name


def _fitting(
    entries: Mapping[tuple[str, Precision], ManifestEntry],
    built: Built,
    precisions: Sequence[Precision],
    again: Collection[str],
) -> dict[tuple[str, Precision], ManifestEntry]:
    """The entries without older precisions of exported bundles and without incomplete stages.

    A specialist replaces the previous specialist of its region (also one with another target) and
    the members of an ensemble. Trunks with the same identity stay in every precision.
    """
    exported = {spec.name: spec for spec, _ in built.bundles.values()}
    replaced = {_region_of(name) for name in exported}
    kept = {
        key: entry
        for key, entry in entries.items()
        if entry.name in exported or not entry.kind.judges or _region_of(entry.name) not in replaced
    }
    kept = {
        key: entry
        for key, entry in kept.items()
        if entry.name not in exported
        or entry.name in again
        or entry.precision in precisions
        or (entry.kind is Kind.TRUNK and entry.trunk == exported[entry.name].trunk)
    }
    trunks = {entry.trunk for entry in kept.values() if entry.kind is Kind.TRUNK}
    used = {entry.trunk for entry in kept.values() if entry.kind is not Kind.TRUNK}
    return {
        key: entry
        for key, entry in kept.items()
        if entry.trunk in (used if entry.kind is Kind.TRUNK else {*trunks, None})
    }
