"""A weights folder as one file: written the same way every time, and taken apart with distrust.

A pack is a zip file that holds the manifest, every file that it lists, and perhaps a signature of
the manifest. Nothing in it is compressed, so that the same weights make the same bytes everywhere
and nothing can grow when it is unpacked.
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
from .intact import check_all
from .manifest import (
    MOST_MANIFEST_BYTES,
    Manifest,
    ManifestEntry,
    parse_manifest,
    read_manifest,
    read_verified,
)
from .screen import screen
from .signing import SIGNATURE_BYTES, check, sign

SIGNATURE_NAME = "manifest.sig"
MOST_BYTES = 4 << 30
"""Of a pack."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
_MOST_MEMBERS = 10_000
_PIECE_BYTES = 1 << 23
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


def write_pack(weights: Path, target: Path, key: Path | None) -> str:
    """Pack a weights folder; the SHA-256 of the pack.

    Args:
        weights: Folder; only what its manifest lists goes along.
        target: File, replaced in one step.
        key: PEM file with the private key that signs, if any.

    Raises:
        BundleError: The folder is damaged.
        UsageError: The key is none, or the target cannot be written.
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
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from error
    return digest


def _member(name: str) -> zipfile.ZipInfo:
    """A header without anything of this machine or moment."""
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
    """Unpack a weights folder; all of it is verified before anything is written.

    Args:
        pack: The opened file.
        source: Its name for messages.
        target: Folder to be made. Old weights there stay whole until the new ones are, and are
            exchanged by renaming.
        trusted: PEM file with the public key of whoever must have signed it; None for anybody.
        replace: Whether old weights may be replaced.

    Returns:
        The new manifest.

    Raises:
        BundleError: The pack is damaged, altered, not signed as wanted, or holds what no weights
            folder holds.
        UsageError: The target is in the way, or cannot be written.
    """
    _refuse_target(target, replace)
    try:
        with zipfile.ZipFile(pack) as archive:
            manifest, proof = _examine(archive, source, trusted)
            return _unpack(archive, manifest, proof, target)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"{source}: found a damaged zip file ({error}), wanted one of `fxpipe weights pack`",
            "fetch it again",
        ) from error


def _refuse_target(target: Path, replace: bool) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UsageError(f"{target}: found a file or a link, wanted a folder or nothing")
    if not target.exists() or not any(target.iterdir()):
        return
    if not (target / MANIFEST_NAME).is_file():
        raise UsageError(
            f"{target}: found a folder with other things than weights", "name another with --to"
        )
    if not replace:
        raise UsageError(
            f"{target}: holds weights already, wanted a new folder",
            "name another with --to, or exchange them with --replace",
        )


def _examine(archive: zipfile.ZipFile, source: str, trusted: Path | None) -> tuple[Manifest, bytes]:
    """Verify a whole pack without writing anything."""
    members = _members(archive, source)
    proof = _content(archive, MANIFEST_NAME, MOST_MANIFEST_BYTES, members, source)
    signed = SIGNATURE_NAME in members
    if trusted is not None:
        signature = None
        if signed:
            signature = _content(archive, SIGNATURE_NAME, SIGNATURE_BYTES, members, source)
        check(proof, signature, trusted, source)
    manifest = parse_manifest(proof, f"{source}: {MANIFEST_NAME}")
    listed = {file.file: file for file in manifest.files}
    wanted = {MANIFEST_NAME, *listed, *([SIGNATURE_NAME] if signed else ())}
    if SIGNATURE_NAME in listed or wanted != set(members):
        strange = sorted(wanted ^ set(members))[:3]
        raise BundleError(
            f"{source}: its manifest and its content differ, in {', '.join(map(repr, strange))}",
            "fetch it again",
        )
    for name, file in listed.items():
        content = _content(archive, name, file.size_bytes, members, source)
        found = hashlib.sha256(content).hexdigest()
        if found != file.sha256:
            raise BundleError(
                f"{source}: {name}: sha256 is {found}, the manifest says {file.sha256}",
                "the file was altered or damaged: fetch it again",
            )
        if isinstance(file, ManifestEntry):
            screen(content, f"{source}: {name}")
    return manifest, proof


def _members(archive: zipfile.ZipFile, source: str) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    members = {info.filename: info for info in infos}
    total = sum(info.file_size for info in infos)
    plain = all(
        info.compress_type == zipfile.ZIP_STORED
        and info.file_size == info.compress_size
        and not info.flag_bits & 1
        for info in infos
    )
    if len(infos) > _MOST_MEMBERS or len(members) < len(infos) or total > MOST_BYTES:
        raise BundleError(
            f"{source}: found {len(infos)} files with {len(members)} names and {total} bytes, "
            f"wanted {_MOST_MEMBERS} or less, each once, and {MOST_BYTES} bytes at most"
        )
    if not plain:
        raise BundleError(
            f"{source}: found compressed or encrypted files in it, wanted plainly stored ones",
            "pack it with `fxpipe weights pack`",
        )
    if MANIFEST_NAME not in members:
        raise BundleError(
            f"{source}: found no {MANIFEST_NAME} in it, wanted a pack of `fxpipe weights pack`"
        )
    return members


def _content(
    archive: zipfile.ZipFile,
    name: str,
    most: int,
    members: dict[str, zipfile.ZipInfo],
    source: str,
) -> bytes:
    if members[name].file_size > most:
        raise BundleError(
            f"{source}: {name}: found {members[name].file_size} bytes, wanted {most} at most"
        )
    return archive.read(members[name])


def _unpack(archive: zipfile.ZipFile, manifest: Manifest, proof: bytes, target: Path) -> Manifest:
    parent = target.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=parent))
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from error
    try:
        # Names come from the manifest, which allows only plain paths, never from the zip file.
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
        staging.chmod(0o755)  # mkdtemp's is for its owner alone
        _exchange(staging, target)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return manifest


def _swap(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, where the system can; whether it did."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # only Linux has it
        return False
    words = (_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE)
    return bool(rename(*words) == 0)


def _to_disk(file: IO[bytes]) -> None:
    """A folder must not get its name before its files have their bytes."""
    file.flush()
    sync(file.fileno())


def _exchange(staging: Path, target: Path) -> None:
    """Give a finished folder its name; old weights come back if that fails."""
    if not target.exists():
        staging.rename(target)
        return
    if _swap(staging, target):
        return  # the old weights are in the place that is cleared now
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
