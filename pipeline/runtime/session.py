"""Loading of the networks of a run, with a check that they fit each other."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..bundle import BundleSpec, Density, Kind, Precision
from ..config import Device, RunConfig
from ..domain import ANY_REGION, REGIONS, OperatingPoint
from ..errors import BundleError, DeviceError, UsageError
from ..fused import FusedSpec
from ..preprocess import PreprocessSpec
from ..weights.intact import verified
from ..weights.manifest import Manifest, ManifestEntry, read_manifest
from .closer import Closer
from .ensemble import Ensemble
from .fused import Fused
from .network import Network, Part, Stage
from .providers import check_opset, open_session, resolve_device

log = logging.getLogger(__name__)
S = TypeVar("S", BundleSpec, FusedSpec)


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

    trunks: Mapping[str, Network]
    region: Stage | None
    fracture: Mapping[str, Stage]
    points: Mapping[str, OperatingPoint]
    device: Device
    precision: Precision
    study_points: Mapping[str, OperatingPoint] = field(default_factory=dict)
    gate: Density | None = None
    far: float | None = None
    far_points: Mapping[str, OperatingPoint] = field(default_factory=dict)

    def point(self, region: str, far: bool) -> OperatingPoint:
        """The operating point for a picture that a specialist specialists.

        Args:
            region: Region of the specialist.
            far: Whether the picture is far from the training pictures.
        """
        return self.far_points[region] if far else self.points[region]

    @property
    def ungated(self) -> str:
        """Warning that the density gate is off, as a sentence; empty if it is on."""
        if self.region is None or self.gate is not None:
            return ""
        return (
            "The density gate is off: a picture that is unlike anything that the networks were "
            "trained on gets a verdict if the router takes it for a supported region."
        )

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The region stage, if there is one, then the specialists."""
        return (*([self.region] if self.region else []), *self.fracture.values())

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

    def digests(self, stages: Iterable[Stage]) -> dict[str, str]:
        """SHA-256 by bundle name of all files that contribute to the predictions of some stages."""
        used = [network for stage in stages for network in stage.networks]
        trunks = [self.trunks[str(n.spec.trunk)] for n in used if n.spec.input == "features"]
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
            Network(*_open(*read(entry), entry, BundleSpec, "cpu", config))


def _load(weights: Path, manifest: Manifest, device: Device, config: RunConfig) -> Weights:
    precision = _choose_precision(manifest, device, config.precision)
    used = manifest.of(precision)
    with verified(weights, manifest, used) as read:
        if manifest.fused:
            (entry,) = used
            fused = Fused(*_open(*read(entry), entry, FusedSpec, device, config))
            return _from_fused(fused, device, config)
        networks = [
            Network(*_open(*read(entry), entry, BundleSpec, device, config)) for entry in used
        ]
        return _assemble(networks, device, precision, config)


def _open(
    content: bytes,
    opset: int,
    entry: ManifestEntry,
    model: type[S],
    device: Device,
    config: RunConfig,
) -> tuple[S, str, Any]:
    """Contract, digest and session of one file with verified content."""
    check_opset(opset, entry.file)
    session, _ = open_session(content, device, config.threads, entry.file)
    metadata = session.get_modelmeta().custom_metadata_map
    spec = model.from_metadata(metadata, entry.file)
    for name in ("name", "kind", "precision", "trunk"):
        actual, listed = getattr(spec, name), getattr(entry, name)
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


def _assemble(
    networks: Iterable[Network], device: Device, precision: Precision, config: RunConfig
) -> Weights:
    """Sort networks by kind, and refuse a set that does not fit together."""
    trunks: dict[str, Network] = {}
    routers: list[Network] = []
    specialists: dict[str, Network] = {}
    for network in networks:
        spec = network.spec
        if spec.kind is Kind.TRUNK:
            if spec.input != "image":
                raise BundleError(
                    f"bundle {spec.name}: the input of a trunk is {spec.input!r}, expected 'image'"
                )
            trunks[str(spec.trunk)] = network
        elif spec.kind is Kind.REGION:
            routers.append(network)
        else:
            specialists[spec.name] = network
    fracture = {
        name: _looking_closer(stage, config.looks)
        for name, stage in _specialists(specialists).items()
    }
    if len(routers) > 1:
        raise BundleError(f"{len(routers)} region stages in the weights folder, expected one")
    region = routers[0] if routers else None
    for network in (*routers, *specialists.values()):
        _check_trunk(network, trunks)
    _check_regions(region, fracture)
    return _complete(trunks, region, fracture, device, precision, config)


def _looking_closer(stage: Stage, looks: int | None) -> Stage:
    """The specialist, wrapped in its closer looks if the settings ask for them.

    Raises:
        UsageError: The specialist does not support this number of looks.
    """
    closer = stage.spec.closer
    supported = 1 + (closer.count if closer else 0)
    if looks not in (None, 1, supported):
        raise UsageError(
            f"looks is {looks}, but {stage.spec.name} supports {supported}: expected 1"
            + (f" or {supported}" if closer else "")
        )
    return stage if closer is None or looks == 1 else Closer(stage, closer)


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
    trunks: Mapping[str, Network], region: Stage | None, fracture: Mapping[str, Stage],
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


def _gate(region: Stage | None, config: RunConfig) -> Density | None:
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


def _far(region: Stage | None, config: RunConfig) -> float | None:
    """The density below which a picture is far from the training pictures."""
    if region is None or region.spec.density is None or config.far == "ignore":
        return None
    return region.spec.density.far


def _specialists(specialists: Mapping[str, Network]) -> dict[str, Stage]:
    """Specialists by region: the fracture bundles that are not members of an ensemble."""
    members = {name for network in specialists.values() for name in network.spec.members}
    fracture: dict[str, Stage] = {}
    for name, network in specialists.items():
        spec = network.spec
        if len(spec.labels) != 1:
            raise BundleError(f"bundle {name}: {len(spec.labels)} labels, expected one")
        if name in members:
            continue
        region = str(spec.region)
        if region in fracture:
            raise BundleError(
                f"two specialists for {region}: {fracture[region].spec.name} and {name}",
                "combine them with `fxpipe ensemble`, or remove one",
            )
        fracture[region] = Ensemble(network, specialists) if spec.members else network
    if not fracture:
        raise BundleError("no fracture stage in the weights folder, expected one or more")
    return fracture


def _check_trunk(network: Network, trunks: Mapping[str, Network]) -> None:
    spec = network.spec
    if spec.input != "features":
        return
    trunk = trunks.get(str(spec.trunk))
    if trunk is None:
        available = ", ".join(digest[:12] for digest in trunks) or "none"
        raise BundleError(
            f"bundle {spec.name} belongs to trunk {str(spec.trunk)[:12]}, the weights folder "
            f"has {available}",
            "export the stage together with its trunk again",
        )
    if trunk.spec.preprocess != spec.preprocess:
        raise BundleError(f"bundle {spec.name} needs a different preprocessing than its trunk")
    produced, expected = trunk.channels("features"), network.channels("features")
    if produced is not None and expected is not None and produced != expected:
        raise BundleError(
            f"bundle {spec.name} takes {expected} feature channels, its trunk produces {produced}"
        )


def _check_regions(region: Stage | None, fracture: Mapping[str, Stage]) -> None:
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


def _points(fracture: Mapping[str, Stage], name: str | None) -> dict[str, OperatingPoint]:
    """Operating point of every specialist; a requested name must exist in all of them."""
    stored = [list(stage.spec.operating_points) for stage in fracture.values()]
    common = [point for point in stored[0] if all(point in others for others in stored)]
    if name is not None and name not in common:
        raise UsageError(
            f"operating point {name!r} is not stored in every specialist; available: "
            f"{', '.join(common) or 'none'}"
        )
    return {region: s.spec.operating_point(name) for region, s in fracture.items()}


def _study_points(fracture: Mapping[str, Stage], name: str | None) -> dict[str, OperatingPoint]:
    """Operating point for whole studies of every specialist that has one."""
    points = {region: stage.spec.study_point(name) for region, stage in fracture.items()}
    return {region: point for region, point in points.items() if point}
