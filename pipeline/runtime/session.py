"""Networks, opened and checked against their contract; and the set of them that a run needs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..bundle import BundleSpec, Kind, Manifest, Precision, read_manifest, read_verified
from ..config import Device, RunConfig
from ..domain import REGIONS, Array, OperatingPoint, StageOutput
from ..errors import BundleError, DeviceError, UsageError
from .providers import RUNTIME_ERRORS, open_session, resolve_device

log = logging.getLogger(__name__)

_FLOAT = "tensor(float)"


class Stage(Protocol):
    """Anything that turns a batch into calibrated probabilities."""

    def predict(self, inputs: Array) -> StageOutput:
        """Answer for N pictures (or N feature maps)."""
        ...


class Network:
    """One opened bundle.

    Args:
        spec: Its contract.
        digest: SHA-256 of its file.
        session: The ``onnxruntime.InferenceSession`` that holds the graph.

    Raises:
        BundleError: The graph does not have the inputs and outputs of its contract.
    """

    def __init__(self, spec: BundleSpec, digest: str, session: Any) -> None:
        self.spec = spec
        self.digest = digest
        self._session = session
        self._shapes = {
            port.name: (port.type, tuple(port.shape))
            for port in (*session.get_inputs(), *session.get_outputs())
        }
        inputs = [port.name for port in session.get_inputs()]
        if inputs != [spec.input]:
            raise BundleError(f"bundle {spec.name}: inputs are {inputs}, wanted [{spec.input!r}]")
        self._check_ports()

    def features(self, images: Array) -> Array:
        """Run a trunk.

        Args:
            images: (N, 1, H, W) float32 in [0, 1], preprocessed as the contract says.

        Returns:
            (N, C, h, w) float32.

        Raises:
            DeviceError: The device gave up, for want of memory above all.
        """
        return self._run(["features"], images)[0]

    def predict(self, inputs: Array, *, evidence: bool = False) -> StageOutput:
        """Run a stage.

        Args:
            inputs: (N, 1, H, W) float32 in [0, 1] for a complete network, (N, C, h, w) float32
                from its trunk for a head.
            evidence: Whether to bring back the evidence maps too.

        Raises:
            DeviceError: The device gave up, for want of memory above all.
        """
        names = ["logits", "probabilities", *(["evidence"] if evidence else [])]
        values = self._run(names, inputs)
        return StageOutput(self.spec.labels, *values)

    def channels(self, port: str) -> int | None:
        """Fixed channel count of an input or output; None when the graph leaves it open."""
        size = self._shapes[port][1][1]
        return size if isinstance(size, int) else None

    def _run(self, names: Sequence[str], inputs: Array) -> list[Array]:
        try:
            values: list[Array] = self._session.run(names, {self.spec.input: inputs})
        except RUNTIME_ERRORS as error:
            raise DeviceError(
                f"bundle {self.spec.name}: the device failed on a batch of shape "
                f"{inputs.shape}: {error}",
                "try a smaller --batch-size, or --device cpu",
            ) from error
        return values

    def _check_ports(self) -> None:
        """Compare names, types and fixed sizes with the contract; open sizes fit anything."""
        spec, labels = self.spec, len(self.spec.labels)
        canvas = (None, 1, spec.preprocess.height_px, spec.preprocess.width_px)
        wanted: dict[str, tuple[int | None, ...]] = {
            spec.input: canvas if spec.input == "image" else (None,) * 4
        }
        if spec.kind is Kind.TRUNK:
            wanted["features"] = (None,) * 4
        else:
            wanted |= {
                "logits": (None, labels),
                "probabilities": (None, labels),
                "evidence": (None, labels, None, None),
            }
        for name, sizes in wanted.items():
            if name not in self._shapes:
                raise BundleError(
                    f"bundle {spec.name}: no {name!r} in the graph, which has "
                    f"{', '.join(self._shapes)}"
                )
            self._check_port(name, sizes)

    def _check_port(self, name: str, sizes: tuple[int | None, ...]) -> None:
        kind, shape = self._shapes[name]
        fits = len(shape) == len(sizes) and all(
            want is None or not isinstance(found, int) or found == want
            for found, want in zip(shape, sizes, strict=True)
        )
        if kind != _FLOAT or not fits or isinstance(shape[0], int):
            wanted = ["N", *("any" if size is None else size for size in sizes[1:])]
            raise BundleError(
                f"bundle {self.spec.name}: {name} is {kind} {list(shape)}, wanted {_FLOAT} "
                f"{wanted} with an open batch size"
            )


@dataclass(frozen=True, slots=True)
class Weights:
    """Every network of a run, fitting each other.

    Attributes:
        trunks: By the identity of their weights (``spec.trunk``).
        region: The stage that routes.
        fracture: The specialists, by region.
        points: The operating point of each specialist, by region.
        device: Where they run.
        precision: Of all of them.
    """

    trunks: Mapping[str, Network]
    region: Network
    fracture: Mapping[str, Network]
    points: Mapping[str, OperatingPoint]
    device: Device
    precision: Precision

    @property
    def stages(self) -> tuple[Network, ...]:
        """The region stage, then the specialists."""
        return (self.region, *self.fracture.values())


def load_bundles(weights: Path, config: RunConfig) -> Weights:
    """Open all bundles of a weights folder in one precision, on one device.

    Args:
        weights: Folder with a manifest.
        config: Device, precision, threads and operating point.

    Raises:
        BundleError: A file is missing, altered, or does not fit the others.
        DeviceError: The device that was asked for does not work.
        UsageError: No specialist has the operating point that was asked for.
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


def _load(weights: Path, manifest: Manifest, device: Device, config: RunConfig) -> Weights:
    precision = _choose_precision(manifest, device, config.precision)
    networks = []
    for entry in manifest.of(precision):
        content = read_verified(weights, entry)
        session, _ = open_session(content, device, config.intra_op_threads, entry.file)
        metadata = session.get_modelmeta().custom_metadata_map
        spec = BundleSpec.from_metadata(metadata, entry.file)
        for field in ("name", "kind", "precision", "trunk"):
            found, listed = getattr(spec, field), getattr(entry, field)
            if found != listed:
                raise BundleError(f"{entry.file}: {field} is {found}, the manifest says {listed}")
        networks.append(Network(spec, entry.sha256, session))
    return _assemble(networks, device, precision, config.operating_point)


def _choose_precision(manifest: Manifest, device: Device, asked: str) -> Precision:
    complete = manifest.precisions
    if not complete:
        raise BundleError(
            "the manifest lists no precision in which every bundle is present",
            "export each stage in the same precision",
        )
    if asked != "auto":
        precision = Precision(asked)
        if precision not in complete:
            raise BundleError(
                f"precision {asked} is not there for every bundle; there is {', '.join(complete)}"
            )
        return precision
    best = Precision.INT8 if device == "cpu" else Precision.FP16
    # fp32 runs well everywhere; the fast format of the other device may not.
    return next(p for p in (best, Precision.FP32, *complete) if p in complete)


def _assemble(
    networks: Iterable[Network], device: Device, precision: Precision, point: str | None
) -> Weights:
    """Sort networks by what they are, and refuse a set that does not fit together."""
    trunks: dict[str, Network] = {}
    routers: list[Network] = []
    fracture: dict[str, Network] = {}
    for network in networks:
        spec = network.spec
        if spec.kind is Kind.TRUNK:
            if spec.input != "image":
                raise BundleError(f"bundle {spec.name}: a trunk that takes {spec.input!r}")
            trunks[str(spec.trunk)] = network
        elif spec.kind is Kind.REGION:
            routers.append(network)
        elif spec.region in fracture:
            other = fracture[str(spec.region)].spec.name
            raise BundleError(f"two specialists for {spec.region}: {other} and {spec.name}")
        else:
            fracture[str(spec.region)] = network
    if len(routers) != 1:
        raise BundleError(f"{len(routers)} region stages in the weights folder, wanted one")
    if not fracture:
        raise BundleError("no fracture stage in the weights folder, wanted one or more")
    region = routers[0]
    for stage in (region, *fracture.values()):
        _check_trunk(stage, trunks)
    _check_labels(region, fracture)
    points = _points(fracture, point)
    for unserved in set(region.spec.labels) - set(fracture):
        log.warning("no specialist for %s: such pictures get no verdict on it", unserved)
    return Weights(trunks, region, fracture, points, device, precision)


def _check_trunk(stage: Network, trunks: Mapping[str, Network]) -> None:
    spec = stage.spec
    if spec.input == "image":
        return
    trunk = trunks.get(str(spec.trunk))
    if trunk is None:
        there = ", ".join(digest[:12] for digest in trunks) or "none"
        raise BundleError(
            f"bundle {spec.name} belongs to trunk {str(spec.trunk)[:12]}, the weights folder "
            f"has {there}",
            "export the stage and its trunk again, together",
        )
    if trunk.spec.preprocess != spec.preprocess:
        raise BundleError(f"bundle {spec.name} wants other preprocessing than its trunk")
    given, taken = trunk.channels("features"), stage.channels("features")
    if given is not None and taken is not None and given != taken:
        raise BundleError(
            f"bundle {spec.name} takes {taken} feature channels, its trunk gives {given}"
        )


def _check_labels(region: Network, fracture: Mapping[str, Network]) -> None:
    known = region.spec.labels
    if unknown := set(known) - set(REGIONS):
        raise BundleError(
            f"bundle {region.spec.name} tells {', '.join(sorted(unknown))}, wanted only "
            f"{', '.join(REGIONS)}"
        )
    for name, network in fracture.items():
        spec = network.spec
        if name not in known:
            raise BundleError(f"bundle {spec.name}: no region stage sends it {name} pictures")
        if len(spec.labels) != 1:
            raise BundleError(f"bundle {spec.name}: {len(spec.labels)} labels, wanted one")


def _points(fracture: Mapping[str, Network], name: str | None) -> dict[str, OperatingPoint]:
    """The operating point of every specialist; a name must be known to all of them."""
    offered = [list(network.spec.operating_points) for network in fracture.values()]
    common = [point for point in offered[0] if all(point in others for others in offered)]
    if name is not None and name not in common:
        raise UsageError(
            f"operating point {name!r} is not stored in every specialist; known: "
            f"{', '.join(common) or 'none'}"
        )
    return {region: n.spec.operating_point(name) for region, n in fracture.items()}
