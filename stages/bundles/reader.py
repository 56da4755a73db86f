"""Access to the bundles of a weights folder."""

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

from .stamp import stamp

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bundle:
    """One bundle of a weights folder.

    Attributes:
        folder: The weights folder.
        files: Manifest entry and contract by precision.
    """

    folder: Path
    files: Mapping[Precision, tuple[ManifestEntry, BundleSpec]]

    @property
    def spec(self) -> BundleSpec:
        """Contract of the first precision; others differ only in ``precision`` and ``members``."""
        return next(iter(self.files.values()))[1]

    def content(self, precision: Precision, name: str) -> bytes:
        """Content of its file, renamed if ``name`` differs."""
        entry, spec = self.files[precision]
        content = read_verified(self.folder, entry)
        if name == entry.name:
            return content
        return stamp(onnx.load_from_string(content), spec.changed(name=name))


BundlesByName = Mapping[str, Bundle]
"""Bundles by name."""


def read_bundles(folder: Path) -> BundlesByName:
    """Every bundle of a weights folder.

    Raises:
        BundleError: The folder is damaged, or holds a fused graph.
    """
    files_of: dict[str, dict[Precision, tuple[ManifestEntry, BundleSpec]]] = {}
    for entry in read_staged(folder).bundles:
        graph = onnx.load_from_string(read_verified(folder, entry))
        metadata = {prop.key: prop.value for prop in graph.metadata_props}
        spec = read_contract(metadata, str(folder / entry.file))
        files_of.setdefault(entry.name, {})[entry.precision] = entry, spec
    return {name: Bundle(folder, files) for name, files in files_of.items()}


def judges(shelf: BundlesByName) -> dict[str, FractureSpec | EnsembleSpec]:
    """Contracts of the fracture networks and ensembles, by name."""
    specs = {name: bundle.spec for name, bundle in shelf.items()}
    return {n: spec for n, spec in specs.items() if isinstance(spec, FractureSpec | EnsembleSpec)}


def members_of(spec: BundleSpec) -> tuple[str, ...]:
    """Names of the members of an ensemble; empty for any other bundle."""
    return tuple(spec.members) if isinstance(spec, EnsembleSpec) else ()


def specialist(shelf: BundlesByName, region: str) -> str:
    """Name of a region's specialist (not an ensemble's member) in a folder; empty without one."""
    specs = judges(shelf)
    members = {member for spec in specs.values() for member in members_of(spec)}
    return next((n for n, s in specs.items() if s.region == region and n not in members), "")


def trunk_of(identity: str, head: Bundle, shelf: BundlesByName) -> Bundle:
    """The trunk of a head.

    Args:
        identity: Identity of the trunk.
        head: The head, for messages.
        shelf: Bundles of the head's folder.

    Raises:
        BundleError: The trunk is not in the folder.
    """
    trunks = (b for b in shelf.values() if isinstance(b.spec, TrunkSpec))
    trunk = next((b for b in trunks if b.spec.trunk == identity), None)
    if trunk is None:
        raise BundleError(
            f"{head.folder}: bundle {head.spec.name} belongs to trunk {identity[:12]}, which is "
            "missing",
            "export the stage and its trunk together again",
        )
    return trunk


def common_precisions(bundles: Mapping[str, Bundle]) -> tuple[Precision, ...]:
    """The precisions that every bundle has.

    Raises:
        ConfigError: There is none.
    """
    missing = {p: [n for n, b in bundles.items() if p not in b.files] for p in Precision}
    common = tuple(p for p, names in missing.items() if not names)
    messages = [
        f"{p} is omitted: {', '.join(names)} does not have it"
        for p, names in missing.items()
        if 0 < len(names) < len(bundles)
    ]
    if not common:
        raise ConfigError(
            f"no precision is common to all bundles: {'; '.join(messages)}",
            "export the members and the base in the same precision",
        )
    for message in messages:
        log.warning("%s", message)
    return common
