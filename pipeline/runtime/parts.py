"""Open networks of a weights folder, sorted by kind, and the specialists that they form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..bundle import BundleSpec, EnsembleSpec, FractureSpec, RegionSpec, TrunkSpec
from ..errors import BundleError, UsageError
from .closer_looks import Closer
from .ensemble_network import Ensemble
from .network import Network, Specialist, Trunk


@dataclass(slots=True)
class Parts:
    """Open networks, sorted by kind.

    Attributes:
        trunks: Trunks by the identity of their weights.
        routers: Region stages.
        single: Fracture networks by name, including the members of ensembles.
        means: Averaging bundles of the ensembles, by name.
        contracts: Contracts of the fracture networks and ensembles, in the order of the manifest.
    """

    trunks: dict[str, Trunk] = field(default_factory=dict)
    routers: list[Network[RegionSpec]] = field(default_factory=list)
    single: dict[str, Network[FractureSpec]] = field(default_factory=dict)
    means: dict[str, Network[EnsembleSpec]] = field(default_factory=dict)
    contracts: list[FractureSpec | EnsembleSpec] = field(default_factory=list)

    def add(self, spec: BundleSpec, digest: str, session: Any) -> None:
        """Open a network and add it by its kind."""
        match spec:
            case TrunkSpec():
                self.trunks[spec.trunk] = Trunk(spec, digest, session)
            case RegionSpec():
                self.routers.append(Network(spec, digest, session))
            case FractureSpec():
                self.single[spec.name] = Network(spec, digest, session)
                self.contracts.append(spec)
            case EnsembleSpec():
                self.means[spec.name] = Network(spec, digest, session)
                self.contracts.append(spec)


def specialists(parts: Parts, looks: int | None) -> dict[str, Specialist]:
    """Specialists by region: the fracture bundles that are not members of an ensemble.

    Args:
        parts: All open networks.
        looks: Number of looks per picture; None for the number that each specialist supports.

    Raises:
        BundleError: There are no specialists, or two for one region, or a member of an ensemble is
            missing.
        UsageError: A specialist does not support this number of looks.
    """
    members = {name for mean in parts.means.values() for name in mean.spec.members}
    if inner := sorted(members & parts.means.keys()):
        raise BundleError(
            f"bundle {inner[0]} is an ensemble itself, expected a single fracture network as a "
            "member of another ensemble",
            "create the ensemble again with `fxpipe ensemble`",
        )
    fracture: dict[str, Specialist] = {}
    for spec in parts.contracts:
        if spec.name in members:
            continue
        if spec.region in fracture:
            raise BundleError(
                f"two specialists for {spec.region}: {fracture[spec.region].spec.name} and "
                f"{spec.name}",
                "combine them with `fxpipe ensemble`, or remove one",
            )
        if isinstance(spec, FractureSpec):
            fracture[spec.region] = _looking_closer(parts.single[spec.name], looks)
        else:
            _check_looks(spec.name, 1, looks)
            fracture[spec.region] = Ensemble(parts.means[spec.name], parts.single)
    if not fracture:
        raise BundleError("no fracture stage in the weights folder, expected one or more")
    return fracture


def _looking_closer(stage: Network[FractureSpec], looks: int | None) -> Specialist:
    """The specialist, wrapped in its closer looks if the settings ask for them.

    Raises:
        UsageError: The specialist does not support this number of looks.
    """
    closer = stage.spec.closer
    _check_looks(stage.spec.name, 1 + (closer.count if closer else 0), looks)
    return stage if closer is None or looks == 1 else Closer(stage, closer)


def _check_looks(name: str, supported: int, looks: int | None) -> None:
    if looks not in (None, 1, supported):
        raise UsageError(
            f"looks is {looks}, but {name} supports {supported}: expected 1"
            + (f" or {supported}" if supported > 1 else "")
        )


def check_trunk(
    network: Network[RegionSpec] | Network[FractureSpec], trunks: Mapping[str, Trunk]
) -> None:
    """Check that the trunk of a head is present and fits it.

    Raises:
        BundleError: The trunk is missing, or its preprocessing or feature channels differ.
    """
    spec = network.spec
    if spec.features_of is None:
        return
    trunk = trunks.get(spec.features_of)
    if trunk is None:
        available = ", ".join(digest[:12] for digest in trunks) or "none"
        raise BundleError(
            f"bundle {spec.name} belongs to trunk {spec.features_of[:12]}, the weights folder "
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
