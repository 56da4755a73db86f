"""Ed25519 signatures of a packed manifest, which holds the digest of everything else.

The package ``cryptography`` is imported only when something is signed or checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import BundleError, UsageError

SIGNATURE_BYTES = 64


def sign(manifest: bytes, key: Path) -> bytes:
    """The signature of a manifest.

    Args:
        manifest: Its bytes.
        key: PEM file with a private Ed25519 key and no password.

    Raises:
        UsageError: The file holds none.
        ModuleNotFoundError: ``cryptography`` is not installed.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private: Any = load_pem_private_key(_read(key), None)
    except (ValueError, TypeError) as error:  # TypeError: it wants a password
        raise _no_key(key, f"no private key ({error})") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise _no_key(key, "a key of another kind")
    signature: bytes = private.sign(manifest)
    return signature


def check(manifest: bytes, signature: bytes | None, trusted: Path, source: str) -> None:
    """Refuse a manifest that the owner of a key has not signed.

    Args:
        manifest: Its bytes.
        signature: None if there is none.
        trusted: PEM file with a public Ed25519 key.
        source: Name of the pack, for messages.

    Raises:
        BundleError: Not signed, or by somebody else.
        UsageError: The file holds no such key.
        ModuleNotFoundError: ``cryptography`` is not installed.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        public: Any = load_pem_public_key(_read(trusted))
    except ValueError as error:
        raise _no_key(trusted, f"no public key ({error})") from error
    if not isinstance(public, Ed25519PublicKey):
        raise _no_key(trusted, "a key of another kind")
    if signature is None:
        raise BundleError(f"{source}: not signed, wanted the signature of {trusted}", _ASK)
    try:
        public.verify(signature, manifest)
    except InvalidSignature as error:
        raise BundleError(
            f"{source}: the signature is not that of {trusted}, or the manifest was altered", _ASK
        ) from error


_ASK = "ask whoever gave you the pack and the key; do not install it without --trust instead"


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from error


def _no_key(file: Path, found: str) -> UsageError:
    return UsageError(
        f"{file}: found {found}, wanted an Ed25519 key as PEM",
        "make one with `openssl genpkey -algorithm ed25519 -out key.pem`, and its public half "
        "with `openssl pkey -in key.pem -pubout -out key.pub.pem`",
    )
