"""The manifest of a weights folder: every file in it, each with its digest, and one over itself.

A change anywhere in the folder is found: of a file by its digest, of the manifest by the digest
that it holds over its own content, and of its white space because it must be, byte for byte, what
:func:`write_manifest` writes.
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
"""Of the files beside the bundles that are listed; an editor's backups and the like are not."""

MOST_MANIFEST_BYTES = 1 << 20
_PIECE_BYTES = 1 << 23
_FORBIDDEN = frozenset('<>:"|?*\\')


def _inside(file: str) -> str:
    """A plain path below the folder, the same on every system."""
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or "\\" in file:
        raise ValueError(f"{file!r} leaves the weights folder")
    plain = file == str(path) and path.parts and not _FORBIDDEN & set(file) and file.isprintable()
    if not plain or any(part != part.strip(" .") for part in path.parts):
        raise ValueError(f"{file!r} is no plain path, wanted one like trunk/int8.onnx")
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
    """The list of all files in a weights folder: bundles, and the documents beside them."""

    schema_version: Literal[2] = SCHEMA_VERSION
    bundles: tuple[ManifestEntry, ...]
    documents: tuple[Listed, ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> Manifest:
        keys = [(entry.name, entry.precision) for entry in self.bundles]
        if len(keys) != len(set(keys)):
            raise ValueError("a bundle is listed twice in one precision")
        if self.fused and len({name for name, _ in keys}) > 1:
            raise ValueError("a fused graph stands alone, found other bundles beside it")
        seen = {MANIFEST_NAME}
        for listed in self.files:
            # Some file systems do not tell A from a.
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
        """Whether every stage is in one graph."""
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
        """The one way in which it is written, with the digest over the rest as its first field."""
        content = self.model_dump(mode="json")
        digest = hashlib.sha256(_text(content)).hexdigest()
        return _text({"digest": digest, **content})


class _Sealed(Manifest):
    """As it lies in the folder."""

    digest: Digest


def _text(content: Any) -> bytes:
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode("ascii")


def read_manifest(weights: Path) -> Manifest:
    """Read ``weights/manifest.json``.

    Raises:
        BundleError: It is missing, malformed, altered or of another version.
    """
    path = weights / MANIFEST_NAME
    try:
        with path.open("rb") as file:
            content = file.read(MOST_MANIFEST_BYTES + 1)
    except FileNotFoundError as error:
        raise BundleError(
            f"{path}: not found, wanted a weights folder with a {MANIFEST_NAME}",
            "name one with --weights, or set FXPIPE_WEIGHTS",
        ) from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_manifest(content, str(path))


def parse_manifest(content: bytes, source: str) -> Manifest:
    """A manifest from its bytes.

    Args:
        content: The whole file.
        source: Name for messages.

    Raises:
        BundleError: Malformed, altered or of another version.
    """
    if len(content) > MOST_MANIFEST_BYTES:
        raise BundleError(
            f"{source}: found more than {MOST_MANIFEST_BYTES} bytes, wanted a manifest",
            _FETCH_AGAIN,
        )
    try:
        sealed = _Sealed.model_validate_json(content)
    except ValidationError as error:
        for fault in error.errors():
            if fault["loc"] == ("schema_version",) and isinstance(fault["input"], int):
                raise _other_version(source, fault["input"]) from error
        raise BundleError(f"{source}: unreadable manifest: {error}", _FETCH_AGAIN) from error
    manifest = Manifest(bundles=sealed.bundles, documents=sealed.documents)
    wanted = manifest.to_bytes()
    if content == wanted:
        return manifest
    digest = json.loads(wanted)["digest"]
    if sealed.digest != digest:
        raise BundleError(
            f"{source}: its digest is {sealed.digest}, its content has {digest}", _FETCH_AGAIN
        )
    raise BundleError(
        f"{source}: found other white space, spelling or order than fxpipe writes, "
        f"wanted {len(wanted)} bytes that it wrote itself",
        _FETCH_AGAIN,
    )


_FETCH_AGAIN = "the file was altered or damaged: fetch the weights folder again"


def _other_version(source: str, found: int) -> BundleError:
    advice = (
        "an older fxpipe wrote it: make the folder anew with this one (`fxpipe export --weights "
        "NEW`, `fxpipe calibrate`, `fxpipe ensemble`), or fetch it again"
        if found < SCHEMA_VERSION
        else "a newer fxpipe wrote it: install that one"
    )
    return BundleError(f"{source}: schema_version is {found}, wanted {SCHEMA_VERSION}", advice)


def read_staged(weights: Path) -> Manifest:
    """The manifest of a folder whose stages are wanted one by one.

    Raises:
        BundleError: It is missing or malformed, or lists a fused graph.
    """
    manifest = read_manifest(weights)
    if manifest.fused:
        raise BundleError(
            f"{weights}: one fused graph, wanted a weights folder with its stages one by one",
            "name the folder that the graph was made of",
        )
    return manifest


def write_manifest(weights: Path, entries: Mapping[tuple[str, Precision], ManifestEntry]) -> None:
    """Write the manifest, sorted, replacing the old one in one step.

    The only place that writes it. Bundles are listed as whoever made them says; documents as they
    lie in the folder, so whatever writes some comes here afterwards.
    """
    manifest = Manifest(
        bundles=tuple(entries[key] for key in sorted(entries)), documents=tuple(_documents(weights))
    )
    write_atomic(weights / MANIFEST_NAME, manifest.to_bytes())


def refresh_manifest(weights: Path) -> None:
    """List the documents anew after some were written; the bundles stay as they were listed.

    Raises:
        BundleError: There is no manifest, or a damaged one.
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
            continue  # a name that not every system can have; `weights verify` tells it


def files_in(weights: Path) -> Iterator[str]:
    """Path of every regular file in the folder, below it; links are none."""
    for path in weights.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(weights).as_posix()


def read_verified(weights: Path, listed: Listed) -> bytes:
    """The bytes of a file, compared with the manifest before anything parses them.

    Raises:
        BundleError: The file is missing, outside of the folder, or not the listed one.
    """
    return b"".join(_pieces(weights, listed))


def check_file(weights: Path, listed: Listed) -> None:
    """Like :func:`read_verified`, without keeping the bytes."""
    for _ in _pieces(weights, listed):
        pass


def _pieces(weights: Path, listed: Listed) -> Iterable[bytes]:
    path = weights / listed.file
    digest = hashlib.sha256()
    found = 0
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(weights.resolve()):
            raise BundleError(
                f"{path}: found a link that leaves the weights folder, wanted a file",
                "copy the file itself into the folder",
            )
        if not real.is_file():
            raise BundleError(f"{path}: found no regular file, wanted one", _advice(listed))
        with real.open("rb") as file:
            while found <= listed.size_bytes and (piece := file.read(_PIECE_BYTES)):
                found += len(piece)
                digest.update(piece)
                yield piece
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        reason = getattr(error, "strerror", None) or error
        raise BundleError(f"{path}: cannot be read: {reason}", _advice(listed)) from error
    if found != listed.size_bytes:
        told = f"{found} bytes" if found < listed.size_bytes else f"more than {listed.size_bytes}"
        raise BundleError(
            f"{path}: found {told}, the manifest says {listed.size_bytes} bytes", _advice(listed)
        )
    if digest.hexdigest() != listed.sha256:
        raise BundleError(
            f"{path}: sha256 is {digest.hexdigest()}, the manifest says {listed.sha256}",
            _advice(listed),
        )


def _advice(listed: Listed) -> str:
    if isinstance(listed, ManifestEntry):
        return _FETCH_AGAIN
    return (
        "the file was altered or damaged: fetch the weights folder again; or, if it was changed "
        "on purpose, list it anew with `fxpipe cards`"
    )
