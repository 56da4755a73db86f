"""List of the bundles in a weights folder, read from their contracts without opening networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..bundle import BundleSpec, JudgeSpec, Kind, read_contract
from ..fused_contract import FusedSpec
from .manifest import ManifestEntry, read_manifest, read_verified
from .onnx_screen import metadata_of


@dataclass(frozen=True, slots=True)
class Row:
    """One file.

    Attributes:
        name, kind, precision, file, size_bytes, sha256: As in the manifest.
        trained_on: Origins of the training pictures, as text.
        created: Start of the training run, ISO 8601.
        points: Names of the operating points, the default one first.
    """

    name: str
    kind: str
    precision: str
    file: str
    size_bytes: int
    sha256: str
    trained_on: str
    created: str
    points: tuple[str, ...]


def rows(weights: Path) -> list[Row]:
    """One row per file, in the order of the manifest.

    Raises:
        BundleError: The folder is damaged.
    """
    return [_row(weights, entry) for entry in read_manifest(weights).bundles]


def _row(weights: Path, entry: ManifestEntry) -> Row:
    metadata = metadata_of(read_verified(weights, entry), entry.file)
    stages: tuple[BundleSpec, ...]
    if entry.kind is Kind.FUSED:
        stages = FusedSpec.from_metadata(metadata, entry.file).stages
    else:
        stages = (read_contract(metadata, entry.file),)
    origins = dict.fromkeys(stage.provenance.data for stage in stages)
    return Row(
        entry.name,
        entry.kind,
        entry.precision,
        entry.file,
        entry.size_bytes,
        entry.sha256,
        "; ".join(origins),
        max(stage.provenance.created for stage in stages),
        tuple(
            dict.fromkeys(name for s in stages if isinstance(s, JudgeSpec) for name in _points(s))
        ),
    )


def _points(spec: JudgeSpec) -> list[str]:
    """Names of the operating points, the default one first."""
    return sorted(spec.operating_points, key=lambda name: name != spec.default_point)
