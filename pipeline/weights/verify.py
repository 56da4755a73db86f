"""Verification of a weights folder against its manifest, in parallel with opening networks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from ..bundle import MANIFEST_NAME
from .manifest import Manifest, ManifestEntry, check_file, files_in, read_verified
from .onnx_screen import screen

_HASH_THREADS = 2
"""Number of hashing threads; more would slow down the opening of networks."""


@contextmanager
def verified(
    weights: Path, manifest: Manifest, used: Collection[ManifestEntry]
) -> Iterator[Callable[[ManifestEntry], tuple[bytes, int]]]:
    """Compare every listed file with its digest, the used files first.

    ::

        with verified(weights, manifest, used) as read:
            networks = [open_network(*read(entry)) for entry in used]

    Hashing continues in the background while the block uses the first files. The block exits only
    after all files are verified.

    Yields:
        A function that returns, once for each bundle in ``used``, its content and its opset. The
        content is compared with the digest and then checked by
        :func:`~pipeline.weights.onnx_screen.screen`.

    Raises:
        BundleError: A file, used or not, is missing or altered, or a used file is not an ONNX
            network that fxpipe accepts.
    """
    with ThreadPoolExecutor(_HASH_THREADS, thread_name_prefix="verify") as pool:
        futures = {entry.file: pool.submit(_read, weights, entry) for entry in used}
        others = sorted(
            (listed for listed in manifest.files if listed.file not in futures),
            key=lambda listed: listed.size_bytes,
        )
        rest = [pool.submit(check_file, weights, listed) for listed in others]

        def read(entry: ManifestEntry) -> tuple[bytes, int]:
            _raise_early(rest)
            return futures.pop(entry.file).result()

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
    """Stop opening networks as soon as a check has failed."""
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
    """Files in the folder that the manifest does not list; fxpipe never opens them."""
    known = {MANIFEST_NAME, *(listed.file for listed in manifest.files)}
    return sorted(set(files_in(weights)) - known)
