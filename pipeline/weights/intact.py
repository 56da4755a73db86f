"""Proof that a weights folder is what its manifest says, while its networks are being opened."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from ..bundle import MANIFEST_NAME
from .manifest import Manifest, ManifestEntry, check_file, files_in, read_verified
from .screen import screen

_HANDS = 2
"""Threads that hash; more than two only take cores from the networks that are being opened."""


@contextmanager
def verified(
    weights: Path, manifest: Manifest, used: Collection[ManifestEntry]
) -> Iterator[Callable[[ManifestEntry], tuple[bytes, int]]]:
    """Compare every listed file with its digest, those that are used first.

    ::

        with verified(weights, manifest, used) as read:
            networks = [open_network(*read(entry)) for entry in used]

    Hashing goes on beside what the block does with the first files. The block is left only when
    every file has been found to be the listed one.

    Yields:
        Gives, once for each bundle in ``used``, its bytes, which were compared with the digest and
        then looked through by :func:`~pipeline.weights.screen.screen`, and the opset they want.

    Raises:
        BundleError: A file, used or not, is missing or altered, or a used one is no network that
            is ever run.
    """
    with ThreadPoolExecutor(_HANDS, thread_name_prefix="verify") as pool:
        wanted = {entry.file: pool.submit(_read, weights, entry) for entry in used}
        others = sorted(
            (listed for listed in manifest.files if listed.file not in wanted),
            key=lambda listed: listed.size_bytes,
        )
        rest = [pool.submit(check_file, weights, listed) for listed in others]

        def read(entry: ManifestEntry) -> tuple[bytes, int]:
            _raise_early(rest)
            return wanted.pop(entry.file).result()

        try:
            yield read
            for check in rest:
                check.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _read(weights: Path, entry: ManifestEntry) -> tuple[bytes, int]:
    content = read_verified(weights, entry)
    return content, screen(content, entry.file)


def _raise_early(checks: Collection[Future[None]]) -> None:
    """No further network is opened when a fault is known already."""
    for check in checks:
        if check.done():
            check.result()


def check_all(weights: Path, manifest: Manifest) -> None:
    """Compare every listed file with its digest.

    Raises:
        BundleError: A file is missing or altered.
    """
    with verified(weights, manifest, ()):
        pass


def unlisted(weights: Path, manifest: Manifest) -> list[str]:
    """Files in the folder that the manifest does not know; none of them is ever opened."""
    known = {MANIFEST_NAME, *(listed.file for listed in manifest.files)}
    return sorted(set(files_in(weights)) - known)
