"""Reproducible packing of a weights folder into one file, and verified installation.

A pack is a zip file with the manifest, all files that it lists, and an optional signature of the
manifest. Its files are stored without compression, so the same weights give the same bytes on every
machine, and nothing expands on extraction.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import IO

from ..atomic import replacing, sync
from ..bundle import MANIFEST_NAME
from ..errors import BundleError, UsageError
from .manifest import (
    MOST_MANIFEST_BYTES,
    Manifest,
    ManifestEntry,
    parse_manifest,
    read_manifest,
    read_verified,
)
from .onnx_screen import screen
from .signing import SIGNATURE_BYTES, check, sign
from .verify import check_all

SIGNATURE_NAME = "manifest.sig"
MOST_BYTES = 4 << 30
"""Largest size of a pack."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
_MOST_MEMBERS = 10_000
_PIECE_BYTES = 1 << 23
_AT_FDCWD, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


def write_pack(weights: Path, target: Path, key: Path | None) -> str:
    """Pack a weights folder and return the SHA-256 of the pack.

    Args:
        weights: Folder; only files in its manifest are packed.
        target: File to write, replaced atomically.
        key: PEM file with the private key for the signature, if any.

    Raises:
        BundleError: The folder is damaged.
        UsageError: The key is invalid, or the target cannot be written.
    """
    manifest = read_manifest(weights)
    proof = manifest.to_bytes()
    members = {MANIFEST_NAME: proof}
    if key is not None:
        members[SIGNATURE_NAME] = sign(proof, key)
    listed = {file.file: file for file in manifest.files}
    try:
        with replacing(target) as partial:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
                for name in sorted({*members, *listed}):
                    content = members.get(name)
                    if content is None:
                        content = read_verified(weights, listed[name])
                    archive.writestr(_member(name), content)
            digest = _digest(partial)
    except OSError as error:
        raise UsageError(f"{target}: cannot write the file: {error.strerror}") from error
    return digest


def _member(name: str) -> zipfile.ZipInfo:
    """A reproducible zip header, independent of machine and time."""
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3
    info.external_attr = 0o100644 << 16
    return info


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def install(
    pack: IO[bytes], source: str, target: Path, *, trusted: Path | None, replace: bool
) -> Manifest:
    """Install a weights folder from a pack; everything is verified before anything is written.

    Args:
        pack: The open file.
        source: Name of the pack, for messages.
        target: Folder to create. Old weights stay intact until the new ones are complete, and are
            then exchanged by renaming.
        trusted: PEM file with the public key of the required signer; None to accept any pack.
        replace: Whether old weights may be replaced.

    Returns:
        The new manifest.

    Raises:
        BundleError: The pack is damaged or altered, lacks the required signature, or has content
            that does not belong in a weights folder.
        UsageError: The target exists, or cannot be written.
    """
    _refuse_target(target, replace)
    try:
        with zipfile.ZipFile(pack) as archive:
            manifest, proof = _examine(archive, source, trusted)
            return _unpack(archive, manifest, proof, target)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"{source}: cannot read the zip file ({error}), expected a pack created by "
            "`fxpipe weights pack`",
            "fetch it again",
        ) from error


def _refuse_target(target: Path, replace: bool) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UsageError(f"{target}: found a file or a link, expected a folder or a new path")
    if not target.exists() or not any(target.iterdir()):
        return
    if not (target / MANIFEST_NAME).is_file():
        raise UsageError(
            f"{target}: the folder contains other files than weights", "choose another with --to"
        )
    if not replace:
        raise UsageError(
            f"{target}: the folder already contains weights",
            "choose another with --to, or replace them with --replace",
        )


def _examine(archive: zipfile.ZipFile, source: str, trusted: Path | None) -> tuple[Manifest, bytes]:
    """Verify a whole pack without writing anything."""
    members = _members(archive, source)
    proof = _content(archive, MANIFEST_NAME, MOST_MANIFEST_BYTES, members, source)
    has_signature = SIGNATURE_NAME in members
    if trusted is not None:
        signature = None
        if has_signature:
            signature = _content(archive, SIGNATURE_NAME, SIGNATURE_BYTES, members, source)
        check(proof, signature, trusted, source)
    manifest = parse_manifest(proof, f"{source}: {MANIFEST_NAME}")
    listed = {file.file: file for file in manifest.files}
    expected = {MANIFEST_NAME, *listed, *([SIGNATURE_NAME] if has_signature else ())}
    if SIGNATURE_NAME in listed or expected != set(members):
        differing = sorted(expected ^ set(members))[:3]
        raise BundleError(
            f"{source}: manifest and content differ: {', '.join(map(repr, differing))}",
            "fetch it again",
        )
    for name, file in listed.items():
        content = _content(archive, name, file.size_bytes, members, source)
        digest = hashlib.sha256(content).hexdigest()
        if digest != file.sha256:
            raise BundleError(
                f"{source}: {name}: sha256 is {digest}, the manifest lists {file.sha256}",
                "the file was altered or damaged: fetch it again",
            )
        if isinstance(file, ManifestEntry):
            screen(content, f"{source}: {name}")
    return manifest, proof


def _members(archive: zipfile.ZipFile, source: str) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    members = {info.filename: info for info in infos}
    total = sum(info.file_size for info in infos)
    stored = all(
        info.compress_type == zipfile.ZIP_STORED
        and info.file_size == info.compress_size
        and not info.flag_bits & 1
        for info in infos
    )
    if len(infos) > _MOST_MEMBERS or len(members) < len(infos) or total > MOST_BYTES:
        raise BundleError(
            f"{source}: found {len(infos)} files with {len(members)} names and {total} bytes, "
            f"expected at most {_MOST_MEMBERS} files, each once, and {MOST_BYTES} bytes"
        )
    if not stored:
        raise BundleError(
            f"{source}: found compressed or encrypted files, expected stored ones",
            "create the pack with `fxpipe weights pack`",
        )
    if MANIFEST_NAME not in members:
        raise BundleError(
            f"{source}: found no {MANIFEST_NAME}, expected a pack created by `fxpipe weights pack`"
        )
    return members


def _content(
    archive: zipfile.ZipFile,
    name: str,
    max_bytes: int,
    members: dict[str, zipfile.ZipInfo],
    source: str,
) -> bytes:
    if members[name].file_size > max_bytes:
        raise BundleError(
            f"{source}: {name}: found {members[name].file_size} bytes, expected at most {max_bytes}"
        )
    return archive.read(members[name])


def _unpack(archive: zipfile.ZipFile, manifest: Manifest, proof: bytes, target: Path) -> Manifest:
    parent = target.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=parent))
    except OSError as error:
        raise UsageError(f"{target}: cannot write the file: {error.strerror}") from error
    try:
        # Names come from the manifest, which allows only plain paths, not from the zip file.
        for listed in manifest.files:
            path = staging / listed.file
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(listed.file) as content, path.open("wb") as file:
                shutil.copyfileobj(content, file, _PIECE_BYTES)
                _to_disk(file)
        with (staging / MANIFEST_NAME).open("wb") as file:
            file.write(proof)
            _to_disk(file)
        check_all(staging, manifest)
        staging.chmod(0o755)  # mkdtemp creates it for its owner only
        _exchange(staging, target)
    except OSError as error:
        raise UsageError(f"{target}: cannot write the file: {error.strerror}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return manifest


def _swap(first: Path, second: Path) -> bool:
    """Exchange two folders atomically; returns whether the system supports it."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # available on Linux only
        return False
    arguments = (_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _EXCHANGE)
    return bool(rename(*arguments) == 0)


def _to_disk(file: IO[bytes]) -> None:
    """Flush a file to disk, so that a renamed folder never contains incomplete files."""
    file.flush()
    sync(file.fileno())


def _exchange(staging: Path, target: Path) -> None:
    """Move a complete folder to its target; old weights are restored if that fails."""
    if not target.exists():
        staging.rename(target)
        return
    if _swap(staging, target):
        return  # the old weights are now in the staging folder, which the caller removes
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old-", dir=staging.parent))
    try:
        target.rename(old / target.name)
        try:
            staging.rename(target)
        except BaseException:
            (old / target.name).rename(target)
            raise
    finally:
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
