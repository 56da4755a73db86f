"""Weights folders taken apart, bundle by bundle."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from pipeline.bundle import (
    BundleSpec,
    EnsembleSpec,
    FractureSpec,
    Precision,
    TrunkSpec,
    read_contract,
)
from pipeline.errors import BundleError, ConfigError
from pipeline.weights.manifest import ManifestEntry, read_staged, read_verified

from .export import stamp

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bundle:
    """One bundle of a weights folder.

    Attributes:
        folder: The weights folder.
        files: Listing and contract in each precision.
    """

    folder: Path
    files: Mapping[Precision, tuple[ManifestEntry, BundleSpec]]

    @property
    def spec(self) -> BundleSpec:
        """Its contract, as in the first precision: only ``precision`` and ``members`` differ."""
        return next(iter(self.files.values()))[1]

    def content(self, precision: Precision, name: str) -> bytes:
        """Its file under a name, which may be a new one."""
        entry, spec = self.files[precision]
        content = read_verified(self.folder, entry)
        if name == entry.name:
            return content
        return stamp(onnx.load_from_string(content), spec.changed(name=name))


Shelf = Mapping[str, Bundle]
"""Bundles by name."""


def read_shelf(folder: Path) -> Shelf:
    """Every bundle of a weights folder.

    Raises:
        BundleError: The folder is damaged, or holds a fused graph.
    """
    found: dict[str, dict[Precision, tuple[ManifestEntry, BundleSpec]]] = {}
    for entry in read_staged(folder).bundles:
        graph = onnx.load_from_string(read_verified(folder, entry))
        metadata = {prop.key: prop.value for prop in graph.metadata_props}
        spec = read_contract(metadata, str(folder / entry.file))
        found.setdefault(entry.name, {})[entry.precision] = entry, spec
    return {name: Bundle(folder, files) for name, files in found.items()}


def judges(shelf: Shelf) -> dict[str, FractureSpec | EnsembleSpec]:
    """The contracts of all that say whether a picture is positive."""
    specs = {name: bundle.spec for name, bundle in shelf.items()}
    return {n: spec for n, spec in specs.items() if isinstance(spec, FractureSpec | EnsembleSpec)}


def members_of(spec: BundleSpec) -> tuple[str, ...]:
    """Names of the members of an ensemble; none of any other bundle."""
    return tuple(spec.members) if isinstance(spec, EnsembleSpec) else ()


def specialist(shelf: Shelf, region: str) -> str:
    """Name of the bundle that speaks for a region in its folder; empty without one."""
    there = judges(shelf)
    claimed = {member for spec in there.values() for member in members_of(spec)}
    return next((n for n, s in there.items() if s.region == region and n not in claimed), "")


def trunk_of(identity: str, head: Bundle, shelf: Shelf) -> Bundle:
    """The trunk that a head belongs to.

    Args:
        identity: Of the trunk.
        head: Whose trunk it is, for messages.
        shelf: Where the head was found.

    Raises:
        BundleError: It is not in the folder.
    """
    trunks = (b for b in shelf.values() if isinstance(b.spec, TrunkSpec))
    found = next((b for b in trunks if b.spec.trunk == identity), None)
    if found is None:
        raise BundleError(
            f"{head.folder}: bundle {head.spec.name} belongs to trunk {identity[:12]}, which is "
            "not there",
            "export the stage and its trunk again, together",
        )
    return found


def common_precisions(bundles: Mapping[str, Bundle]) -> tuple[Precision, ...]:
    """The precisions that every bundle has.

    Raises:
        ConfigError: There is none.
    """
    lacking = {p: [n for n, b in bundles.items() if p not in b.files] for p in Precision}
    common = tuple(p for p, names in lacking.items() if not names)
    told = {
        p: f"{p} is left out: {', '.join(names)} is not there in it"
        for p, names in lacking.items()
        if 0 < len(names) < len(bundles)
    }
    if not common:
        raise ConfigError(
            f"no precision is common to all bundles: {'; '.join(told.values())}",
            "export the members and the base in the same precision",
        )
    for words in told.values():
        log.warning("%s", words)
    return common
