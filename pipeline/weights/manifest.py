"""Manifest of a weights folder: all files with their digests, and a digest of the manifest.

Any change in the folder is detected: a changed file by its digest, a changed manifest by the digest
of its own content. The manifest must be byte for byte what :func:`write_manifest` writes, so
changes of white space are detected too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from ..atomic import write_atomic
from ..bundle import MANIFEST_NAME, Digest, Frozen, Kind, Name, Precision
from ..errors import BundleError

SCHEMA_VERSION: Final = 2
DOCUMENT_SUFFIXES = (".md", ".json", ".txt")
"""Suffixes of the documents that are listed; backup files of an editor and others are not."""

MOST_MANIFEST_BYTES = 1 << 20
_PIECE_BYTES = 1 << 23
_FORBIDDEN = frozenset('<>:"|?*\\')


def _inside(file: str) -> str:
    """Check that a path is relative, inside the folder and valid on every system."""
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or "\\" in file:
        raise ValueError(f"{file!r} leaves the weights folder")
    plain = file == str(path) and path.parts and not _FORBIDDEN & set(file) and file.isprintable()
    if not plain or any(part != part.strip(" .") for part in path.parts):
        raise ValueError(f"{file!r} is not a plain path, expected one like trunk/int8.onnx")
    return file


class Listed(Frozen):
    """One file of the weights folder."""

    file: Annotated[str, AfterValidator(_inside)]
    sha256: Digest
    size_bytes: int = Field(ge=0)


class ManifestEntry(Listed):
    """One bundle; ``trunk`` as in its contract. Older manifests call an ensemble ``fracture``."""

    name: Name
    kind: Kind
    precision: Precision
    trunk: Digest | None
    size_bytes: int = Field(gt=0)


class Manifest(Frozen):
    """List of all files in a weights folder: bundles and documents."""

    schema_version: Literal[2] = SCHEMA_VERSION
    bundles: tuple[ManifestEntry, ...]
    documents: tuple[Listed, ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> Manifest:
        keys = [(entry.name, entry.precision) for entry in self.bundles]
        if len(keys) != len(set(keys)):
            raise ValueError("a bundle is listed twice in one precision")
        if self.fused and len({name for name, _ in keys}) > 1:
            raise ValueError("a fused graph must be the only bundle, found others")
        seen = {MANIFEST_NAME}
        for listed in self.files:
            # Some file systems are not case-sensitive.
            if listed.file.casefold() in seen:
                raise ValueError(f"{listed.file!r} is listed twice")
            seen.add(listed.file.casefold())
        return self

    @property
    def files(self) -> tuple[Listed, ...]:
        """Bundles, then documents."""
        return (*self.bundles, *self.documents)

    @property
    def fused(self) -> bool:
        """Whether all stages are in one graph."""
        return any(entry.kind is Kind.FUSED for entry in self.bundles)

    def of(self, precision: Precision) -> tuple[ManifestEntry, ...]:
        """The bundles of one precision."""
        return tuple(entry for entry in self.bundles if entry.precision is precision)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions in which every bundle name is present."""
        names = {entry.name for entry in self.bundles}
        return tuple(p for p in Precision if {entry.name for entry in self.of(p)} == names)

    def to_bytes(self) -> bytes:
        """Canonical serialisation, with the digest of the rest as the first field."""
        content = self.model_dump(mode="json")
        digest = hashlib.sha256(_text(content)).hexdigest()
        return _text({"digest": digest, **content})


class _Sealed(Manifest):
    """A manifest as stored in the folder."""

    digest: Digest


def _text(content: Any) -> bytes:
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode("ascii")


def read_manifest(weights: Path) -> Manifest:
    """Read ``manifest.json`` of a weights folder.

    Raises:
        BundleError: The manifest is missing, malformed, altered or of another version.
    """
    path = weights / MANIFEST_NAME
    try:
        with path.open("rb") as file:
            content = file.read(MOST_MANIFEST_BYTES + 1)
    except FileNotFoundError as error:
        raise BundleError(
            f"{path}: not found, expected a weights folder with a {MANIFEST_NAME}",
            "pass one with --weights, or set FXPIPE_WEIGHTS",
        ) from error
    except OSError as error:
        raise BundleError(f"{path}: cannot read the file: {error.strerror}") from error
    return parse_manifest(content, str(path))


def parse_manifest(content: bytes, source: str) -> Manifest:
    """Parse a manifest.

    Args:
        content: The whole file.
        source: Name for messages.

    Raises:
        BundleError: The manifest is malformed, altered or of another version.
    """
    if len(content) > MOST_MANIFEST_BYTES:
        raise BundleError(
            f"{source}: found more than {MOST_MANIFEST_BYTES} bytes, expected a manifest",
            _FETCH_AGAIN,
        )
    try:
        sealed = _Sealed.model_validate_json(content)
    except ValidationError as error:
        for fault in error.errors():
            if fault["loc"] == ("schema_version",) and isinstance(fault["input"], int):
                raise _other_version(source, fault["input"]) from error
        raise BundleError(f"{source}: invalid manifest: {error}", _FETCH_AGAIN) from error
    manifest = Manifest(bundles=sealed.bundles, documents=sealed.documents)
    expected = manifest.to_bytes()
    if content == expected:
        return manifest
    digest = json.loads(expected)["digest"]
    if sealed.digest != digest:
        raise BundleError(
            f"{source}: digest is {sealed.digest}, the content has {digest}", _FETCH_AGAIN
        )
    raise BundleError(
        f"{source}: white space, spelling or order differ from what fxpipe writes, "
        f"expected {len(expected)} unchanged bytes",
        _FETCH_AGAIN,
    )


_FETCH_AGAIN = "the file was altered or damaged: fetch the weights folder again"


def _other_version(source: str, version: int) -> BundleError:
    advice = (
        "an older fxpipe wrote it: create the folder again with this version (`fxpipe export "
        "--weights NEW`, `fxpipe calibrate`, `fxpipe ensemble`), or fetch it again"
        if version < SCHEMA_VERSION
        else "a newer fxpipe wrote it: install that version"
    )
    return BundleError(f"{source}: schema_version is {version}, expected {SCHEMA_VERSION}", advice)


def read_staged(weights: Path) -> Manifest:
    """Read the manifest of a folder whose stages are separate bundles.

    Raises:
        BundleError: The manifest is missing or malformed, or lists a fused graph.
    """
    manifest = read_manifest(weights)
    if manifest.fused:
        raise BundleError(
            f"{weights}: found a fused graph, expected a weights folder with separate stages",
            "use the folder that the graph was made from",
        )
    return manifest


def write_manifest(weights: Path, entries: Mapping[tuple[str, Precision], ManifestEntry]) -> None:
    """Write the sorted manifest, replacing the old one atomically.

    Nothing else writes it. ``entries`` describe the bundles; documents are read from the folder, so
    call this (or :func:`refresh_manifest`) after writing any.
    """
    manifest = Manifest(
        bundles=tuple(entries[key] for key in sorted(entries)), documents=tuple(_documents(weights))
    )
    write_atomic(weights / MANIFEST_NAME, manifest.to_bytes())


def refresh_manifest(weights: Path) -> None:
    """Update the listed documents; the entries of the bundles do not change.

    Raises:
        BundleError: The manifest is missing or damaged.
    """
    bundles = read_manifest(weights).bundles
    write_manifest(weights, {(entry.name, entry.precision): entry for entry in bundles})


def _documents(weights: Path) -> Iterator[Listed]:
    for file in sorted(files_in(weights)):
        path = PurePosixPath(file)
        hidden = any(part.startswith(".") for part in path.parts)
        if hidden or path.suffix not in DOCUMENT_SUFFIXES or file == MANIFEST_NAME:
            continue
        content = (weights / file).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        try:
            yield Listed(file=file, sha256=digest, size_bytes=len(content))
        except ValidationError:
            continue  # a name that is not portable; `weights verify` reports it


def files_in(weights: Path) -> Iterator[str]:
    """Relative path of every regular file in the folder, without links."""
    for path in weights.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(weights).as_posix()


def read_verified(weights: Path, listed: Listed) -> bytes:
    """Read a file and compare it with the manifest before anything parses it.

    Raises:
        BundleError: The file is missing, outside the folder, or not the listed one.
    """
    return b"".join(_pieces(weights, listed))


def check_file(weights: Path, listed: Listed) -> None:
    """Like :func:`read_verified`, without keeping the bytes."""
    for _ in _pieces(weights, listed):
        pass


def _pieces(weights: Path, listed: Listed) -> Iterable[bytes]:
    path = weights / listed.file
    digest = hashlib.sha256()
    read = 0
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(weights.resolve()):
            raise BundleError(
                f"{path}: found a link that leaves the weights folder, expected a file",
                "copy the file itself into the folder",
            )
        if not real.is_file():
            raise BundleError(f"{path}: not a regular file", _advice(listed))
        with real.open("rb") as file:
            while read <= listed.size_bytes and (piece := file.read(_PIECE_BYTES)):
                read += len(piece)
                digest.update(piece)
                yield piece
    except (OSError, RuntimeError) as error:  # RuntimeError: circular links
        reason = getattr(error, "strerror", None) or error
        raise BundleError(f"{path}: cannot read the file: {reason}", _advice(listed)) from error
    if read != listed.size_bytes:
        size = f"{read} bytes" if read < listed.size_bytes else f"more than {listed.size_bytes}"
        raise BundleError(
            f"{path}: found {size}, the manifest lists {listed.size_bytes} bytes", _advice(listed)
        )
    if digest.hexdigest() != listed.sha256:
        raise BundleError(
            f"{path}: sha256 is {digest.hexdigest()}, the manifest lists {listed.sha256}",
            _advice(listed),
        )


def _advice(listed: Listed) -> str:
    if isinstance(listed, ManifestEntry):
        return _FETCH_AGAIN
    return (
        "the file was altered or damaged: fetch the weights folder again; or, if it was changed "
        "on purpose, update the manifest with `fxpipe cards`"
    )
