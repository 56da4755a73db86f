"""The opened networks of a weights folder, sorted, and the specialists that they make up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..bundle import BundleSpec, EnsembleSpec, FractureSpec, RegionSpec, TrunkSpec
from ..errors import BundleError, UsageError
from .closer import Closer
from .ensemble import Ensemble
from .network import Network, Specialist, Trunk


@dataclass(slots=True)
class Parts:
    """Opened networks, sorted by what they are; ``judged`` has all specialists in their order."""

    trunks: dict[str, Trunk] = field(default_factory=dict)
    routers: list[Network[RegionSpec]] = field(default_factory=list)
    single: dict[str, Network[FractureSpec]] = field(default_factory=dict)
    means: dict[str, Network[EnsembleSpec]] = field(default_factory=dict)
    judged: list[FractureSpec | EnsembleSpec] = field(default_factory=list)

    def add(self, spec: BundleSpec, digest: str, session: Any) -> None:
        """Put one in its place."""
        match spec:
            case TrunkSpec():
                self.trunks[spec.trunk] = Trunk(spec, digest, session)
            case RegionSpec():
                self.routers.append(Network(spec, digest, session))
            case FractureSpec():
                self.single[spec.name] = Network(spec, digest, session)
                self.judged.append(spec)
            case EnsembleSpec():
                self.means[spec.name] = Network(spec, digest, session)
                self.judged.append(spec)


def specialists(parts: Parts, looks: int | None) -> dict[str, Specialist]:
    """The specialists by region: the fracture bundles that are no ensemble's member.

    Args:
        parts: All networks.
        looks: How often they look at a picture; None for as often as they were made for.

    Raises:
        BundleError: There is none, or two for a region, or an ensemble lacks a member.
        UsageError: One was not made for so many looks.
    """
    claimed = {name for mean in parts.means.values() for name in mean.spec.members}
    if inner := sorted(claimed & parts.means.keys()):
        raise BundleError(
            f"bundle {inner[0]} is an ensemble itself, wanted single fracture networks as members "
            "of another",
            "make the ensemble again: `fxpipe ensemble`",
        )
    fracture: dict[str, Specialist] = {}
    for spec in parts.judged:
        if spec.name in claimed:
            continue
        if spec.region in fracture:
            raise BundleError(
                f"two specialists for {spec.region}: {fracture[spec.region].spec.name} and "
                f"{spec.name}",
                "make one of them with `fxpipe ensemble`, or take one out",
            )
        if isinstance(spec, FractureSpec):
            fracture[spec.region] = _looking_closer(parts.single[spec.name], looks)
        else:
            _check_looks(spec.name, 1, looks)
            fracture[spec.region] = Ensemble(parts.means[spec.name], parts.single)
    if not fracture:
        raise BundleError("no fracture stage in the weights folder, wanted one or more")
    return fracture


def _looking_closer(stage: Network[FractureSpec], looks: int | None) -> Specialist:
    """The specialist with its closer looks, or as it is.

    Raises:
        UsageError: It was not made for so many.
    """
    closer = stage.spec.closer
    _check_looks(stage.spec.name, 1 + (closer.count if closer else 0), looks)
    return stage if closer is None or looks == 1 else Closer(stage, closer)


def _check_looks(name: str, made_for: int, looks: int | None) -> None:
    if looks not in (None, 1, made_for):
        raise UsageError(
            f"looks is {looks}, but {name} was made for {made_for}: wanted 1"
            + (f" or {made_for}" if made_for > 1 else "")
        )


def check_trunk(
    network: Network[RegionSpec] | Network[FractureSpec], trunks: Mapping[str, Trunk]
) -> None:
    """Refuse a head whose trunk is missing, or is not the one that it was trained on.

    Raises:
        BundleError: It is.
    """
    spec = network.spec
    if spec.features_of is None:
        return
    trunk = trunks.get(spec.features_of)
    if trunk is None:
        there = ", ".join(digest[:12] for digest in trunks) or "none"
        raise BundleError(
            f"bundle {spec.name} belongs to trunk {spec.features_of[:12]}, the weights folder "
            f"has {there}",
            "export the stage and its trunk again, together",
        )
    if trunk.spec.preprocess != spec.preprocess:
        raise BundleError(f"bundle {spec.name} wants other preprocessing than its trunk")
    given, taken = trunk.channels("features"), network.channels("features")
    if given is not None and taken is not None and given != taken:
        raise BundleError(
            f"bundle {spec.name} takes {taken} feature channels, its trunk gives {given}"
        )
