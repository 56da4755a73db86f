"""Creation of a weights folder; does not need torch."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.bundle import BundleSpec, Precision
from pipeline.errors import UsageError
from pipeline.fused_contract import FusedSpec
from pipeline.weights.manifest import ManifestEntry, check_file, read_manifest

from .model_cards import NOTICE


def keep_notice(weights: Path, target: Path) -> None:
    """Copy the notice of a weights folder, if there is one.

    Raises:
        BundleError: It differs from the one that the manifest lists.
    """
    if not (weights / NOTICE).is_file():
        return
    for listed in read_manifest(weights).documents:
        if listed.file == NOTICE:
            check_file(weights, listed)
    shutil.copy(weights / NOTICE, target / NOTICE)


@dataclass(slots=True)
class NewFolder:
    """A new weights folder.

    Attributes:
        place: Its path; it exists and is empty.
        entries: Entries of the added files, for the manifest.
    """

    place: Path
    entries: dict[tuple[str, Precision], ManifestEntry] = field(default_factory=dict)

    def add(
        self, spec: BundleSpec | FusedSpec, name: str, precision: Precision, content: bytes
    ) -> str:
        """Write one file; return its SHA-256."""
        file = self.place / name / f"{precision}.onnx"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        self.entries[name, precision] = ManifestEntry(
            name=name, kind=spec.kind, precision=precision, trunk=spec.trunk,
            file=file.relative_to(self.place).as_posix(), sha256=digest, size_bytes=len(content),
        )  # fmt: skip
        return digest


def refuse_used(target: Path) -> None:
    """Refuse a target that is not empty, such as the source folder.

    Raises:
        UsageError: The target is not empty.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target}: the folder is not empty", "choose another --output")
