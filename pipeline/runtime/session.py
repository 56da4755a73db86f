"""Loading of the networks of a run, with a check that they fit each other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..bundle import BundleSpec, Density, FractureSpec, Kind, Precision, read_contract
from ..config import Device, RunConfig
from ..domain import ANY_REGION, REGIONS
from ..errors import BundleError, DeviceError, UsageError
from ..fused_contract import FusedSpec
from ..outcome import OperatingPoint
from ..preprocess import PreprocessSpec
from ..weights.manifest import Manifest, ManifestEntry, read_manifest
from ..weights.verify import verified
from .closer_looks import Closer
from .fused_network import Fused
from .network import Opened, Part, Router, Specialist, Trunk
from .parts import Parts, check_trunk, specialists
from .providers import check_opset, open_session, resolve_device

log = logging.getLogger(__name__)
C = TypeVar("C", bound=BundleSpec | FusedSpec)


@dataclass(frozen=True, slots=True)
class Weights:
    """All networks of a run, checked to fit each other.

    Attributes:
        trunks: Trunks by the identity of their weights (``spec.trunk``); empty for a fused graph.
        region: The region stage, which routes pictures; None if one specialist judges all
            regions.
        fracture: The specialists by region; ``all`` for one that judges every region.
        points: Operating point of each specialist, by region.
        device: Device that runs the networks.
        precision: Precision of all networks.
        study_points: The same point for whole studies, for the specialists that have one.
        gate: The density gate that pictures must pass; None without a region stage, or if the
            settings switch it off.
        far: Density below which a picture is far from the training pictures; None without a
            density, or if the settings ignore it.
        far_points: Operating point of each specialist for such pictures, by region.
    """

    trunks: Mapping[str, Trunk]
    region: Router | None
    fracture: Mapping[str, Specialist]
    points: Mapping[str, OperatingPoint]
    device: Device
    precision: Precision
    study_points: Mapping[str, OperatingPoint] = field(default_factory=dict)
    gate: Density | None = None
    far: float | None = None
    far_points: Mapping[str, OperatingPoint] = field(default_factory=dict)

    def point(self, region: str, far: bool) -> OperatingPoint:
        """The operating point for a picture that a specialist judges.

        Args:
            region: Region of the specialist.
            far: Whether the picture is far from the training pictures.
        """
        return self.far_points[region] if far else self.points[region]

    @property
    def gate_warning(self) -> str:
        """Warning that the density gate is off, as a sentence; empty if it is on."""
        if self.region is None or self.gate is not None:
            return ""
        return (
            "The density gate is off: a picture that is unlike anything that the networks were "
            "trained on gets a verdict if the router takes it for a supported region."
        )

    @property
    def stages(self) -> tuple[Router | Specialist, ...]:
        """The region stage, if there is one, then the specialists."""
        stages: list[Router | Specialist] = [self.region] if self.region else []
        stages.extend(self.fracture.values())
        return tuple(stages)

    @property
    def has_types(self) -> bool:
        """Whether any specialist predicts fracture types."""
        specs = (stage.spec for stage in self.fracture.values())
        return any(isinstance(spec, FractureSpec) and spec.types is not None for spec in specs)

    @property
    def networks(self) -> tuple[Part, ...]:
        """All networks without duplicates: the trunks, then those of the stages."""
        used = (network for stage in self.stages for network in stage.networks)
        return tuple(dict.fromkeys([*self.trunks.values(), *used]))

    @property
    def preprocessings(self) -> tuple[PreprocessSpec, ...]:
        """All preprocessings that the networks need, without duplicates."""
        closer = (stage.canvas for stage in self.stages if isinstance(stage, Closer))
        return tuple(dict.fromkeys([*(n.spec.preprocess for n in self.networks), *closer]))

    def digests(self, stages: Iterable[Router | Specialist]) -> dict[str, str]:
        """SHA-256 by bundle name of all files that contribute to the predictions of some stages."""
        used = [network for stage in stages for network in stage.networks]
        trunks = [self.trunks[n.spec.features_of] for n in used if n.spec.features_of]
        return {network.bundle: network.digest for network in (*used, *trunks)}


def load_bundles(weights: Path, config: RunConfig) -> Weights:
    """Open all bundles of a weights folder in one precision, on one device.

    Args:
        weights: Folder with a manifest. All listed files are compared with their digests,
            including other precisions and the documents.
        config: Device, precision, threads, operating point and density gate.

    Raises:
        BundleError: A file is missing, altered, or does not fit the others; or the region stage
            has no density gate and the settings do not switch it off.
        DeviceError: The requested device does not work.
        UsageError: No specialist has the requested operating point.
    """
    manifest = read_manifest(weights)
    device = resolve_device(config.device)
    try:
        return _load(weights, manifest, device, config)
    except DeviceError as error:
        if config.device != "auto" or device == "cpu":
            raise
        log.warning("using the CPU: %s", error)
        return _load(weights, manifest, "cpu", config)


def try_bundles(weights: Path, manifest: Manifest, precision: Precision) -> None:
    """Open all bundles of one precision on the CPU; check the whole set if it is complete.

    Raises:
        BundleError: A file is missing, altered, cannot be opened or does not fit the others.
    """
    # This checks that the bundles fit each other; the density gate is not needed for that.
    config = RunConfig(device="cpu", precision=precision, gate="off")
    if precision in manifest.precisions:
        _load(weights, manifest, "cpu", config)
        return
    used = manifest.of(precision)
    with verified(weights, manifest, used) as read:
        for entry in used:
            Opened(*_open(*read(entry), entry, read_contract, "cpu", config))


def _load(weights: Path, manifest: Manifest, device: Device, config: RunConfig) -> Weights:
    precision = _choose_precision(manifest, device, config.precision)
    used = manifest.of(precision)
    with verified(weights, manifest, used) as read:
        if manifest.fused:
            (entry,) = used
            opened = _open(*read(entry), entry, FusedSpec.from_metadata, device, config)
            return _from_fused(Fused(*opened), device, config)
        parts = Parts()
        for entry in used:
            parts.add(*_open(*read(entry), entry, read_contract, device, config))
        return _assemble(parts, device, precision, config)


def _open(
    content: bytes,
    opset: int,
    entry: ManifestEntry,
    contract: Callable[[Mapping[str, str], str], C],
    device: Device,
    config: RunConfig,
) -> tuple[C, str, Any]:
    """Contract, digest and session of one file with verified content."""
    check_opset(opset, entry.file)
    session, _ = open_session(content, device, config.threads, entry.file)
    metadata = session.get_modelmeta().custom_metadata_map
    spec = contract(metadata, entry.file)
    for name in ("name", "kind", "precision", "trunk"):
        actual, listed = getattr(spec, name), getattr(entry, name)
        if (actual, listed) == (Kind.ENSEMBLE, Kind.FRACTURE):
            continue  # older manifests list an ensemble as a fracture bundle
        if actual != listed:
            raise BundleError(f"{entry.file}: {name} is {actual}, the manifest lists {listed}")
    return spec, entry.sha256, session


def _choose_precision(manifest: Manifest, device: Device, requested: str) -> Precision:
    complete = manifest.precisions
    if not complete:
        raise BundleError(
            "the manifest lists no precision in which every bundle is present",
            "export all stages in the same precision",
        )
    if requested != "auto":
        precision = Precision(requested)
        if precision not in complete:
            raise BundleError(
                f"precision {requested} is not available for every bundle; available: "
                f"{', '.join(complete)}"
            )
        return precision
    best = Precision.INT8 if device == "cpu" else Precision.FP16
    # fp32 runs well on any device; the fast format of another device may not.
    return next(p for p in (best, Precision.FP32, *complete) if p in complete)


def _assemble(parts: Parts, device: Device, precision: Precision, config: RunConfig) -> Weights:
    """Refuse a set that does not fit together."""
    fracture = specialists(parts, config.looks)
    if len(parts.routers) > 1:
        raise BundleError(f"{len(parts.routers)} region stages in the weights folder, expected one")
    region = parts.routers[0] if parts.routers else None
    for router in parts.routers:
        check_trunk(router, parts.trunks)
    for specialist in parts.single.values():
        check_trunk(specialist, parts.trunks)
    _check_regions(region, fracture)
    return _complete(parts.trunks, region, fracture, device, precision, config)


def _from_fused(fused: Fused, device: Device, config: RunConfig) -> Weights:
    """The stages of a fused graph, which supports one look."""
    if config.looks not in (None, 1):
        raise UsageError(
            f"looks is {config.looks}, but a fused graph supports one look: expected 1"
        )
    region, fracture = fused.region, fused.fracture
    _check_regions(region, fracture)
    return _complete({}, region, fracture, device, fused.spec.precision, config)


def _complete(
    trunks: Mapping[str, Trunk], region: Router | None, fracture: Mapping[str, Specialist],
    device: Device, precision: Precision, config: RunConfig,
) -> Weights:  # fmt: skip
    """Combine matching stages with the decision rules from the settings."""
    return Weights(
        trunks,
        region,
        fracture,
        _points(fracture, config.operating_point),
        device,
        precision,
        _study_points(fracture, config.operating_point),
        _gate(region, config),
        _far(region, config),
        {name: s.spec.far_point(config.operating_point) for name, s in fracture.items()},
    )


def _gate(region: Router | None, config: RunConfig) -> Density | None:
    """The active density gate; a region stage without one is refused.

    Only contracts of schema version 1 run without a gate, because they predate it.
    """
    if region is None:
        return None
    if config.gate == "off":
        return None
    if region.spec.density is None and region.spec.schema_version > 1:
        raise BundleError(
            f"bundle {region.spec.name} has no density gate: it would judge pictures that are "
            "unlike all its training pictures",
            "export the region stage again with `fxpipe export`, or run without the gate: "
            "`--set gate=off` (`fxpipe run`, `evaluate` and `bench`)",
        )
    return region.spec.density


def _far(region: Router | None, config: RunConfig) -> float | None:
    """The density below which a picture is far from the training pictures."""
    if region is None or region.spec.density is None or config.far == "ignore":
        return None
    return region.spec.density.far


def _check_regions(region: Router | None, fracture: Mapping[str, Specialist]) -> None:
    """Check that the region stage and the specialists cover the same regions."""
    if region is None:
        if set(fracture) != {ANY_REGION}:
            raise BundleError(
                f"no region stage in the weights folder, which has specialists for "
                f"{', '.join(fracture)}: only a single fracture stage for all regions can run "
                f"without one",
                "export the region stage too, or train with `--region all`",
            )
        log.warning(
            "no region stage: every picture gets a verdict, even of a body part that the network "
            "was not trained on"
        )
        return
    known = region.spec.labels
    if unknown := set(known) - set(REGIONS):
        raise BundleError(
            f"bundle {region.spec.name} recognises {', '.join(sorted(unknown))}, supported "
            f"regions are {', '.join(REGIONS)}"
        )
    for name, stage in fracture.items():
        if name not in (*known, ANY_REGION):
            raise BundleError(
                f"bundle {stage.spec.name}: the region stage does not recognise {name}"
            )
    for unserved in () if ANY_REGION in fracture else set(known) - set(fracture):
        log.warning("no specialist for %s: its pictures get no fracture verdict", unserved)


def _points(fracture: Mapping[str, Specialist], name: str | None) -> dict[str, OperatingPoint]:
    """Operating point of every specialist; a requested name must exist in all of them."""
    stored = [list(stage.spec.operating_points) for stage in fracture.values()]
    common = [point for point in stored[0] if all(point in others for others in stored)]
    if name is not None and name not in common:
        raise UsageError(
            f"operating point {name!r} is not stored in every specialist; available: "
            f"{', '.join(common) or 'none'}"
        )
    return {region: s.spec.operating_point(name) for region, s in fracture.items()}


def _study_points(
    fracture: Mapping[str, Specialist], name: str | None
) -> dict[str, OperatingPoint]:
    """Operating point for whole studies of every specialist that has one."""
    points = {region: stage.spec.study_point(name) for region, stage in fracture.items()}
    return {region: point for region, point in points.items() if point}
