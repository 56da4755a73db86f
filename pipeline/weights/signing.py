"""Ed25519 signatures of a manifest, which contains the digests of all files.

The package ``cryptography`` is imported only to sign or verify.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import BundleError, UsageError

SIGNATURE_BYTES = 64


def sign(manifest: bytes, key: Path) -> bytes:
    """Sign a manifest.

    Args:
        manifest: Content of the manifest.
        key: PEM file with a private Ed25519 key without a password.

    Raises:
        UsageError: The file does not contain such a key.
        ModuleNotFoundError: ``cryptography`` is not installed.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private: Any = load_pem_private_key(_read(key), None)
    except (ValueError, TypeError) as error:  # TypeError: the key has a password
        raise _no_key(key, f"no private key ({error})") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise _no_key(key, "a key of another kind")
    signature: bytes = private.sign(manifest)
    return signature


def check(manifest: bytes, signature: bytes | None, trusted: Path, source: str) -> None:
    """Refuse a manifest without a valid signature of a key.

    Args:
        manifest: Content of the manifest.
        signature: The signature; None if the pack has none.
        trusted: PEM file with a public Ed25519 key.
        source: Name of the pack, for messages.

    Raises:
        BundleError: The manifest is not signed, or not with this key.
        UsageError: The file does not contain such a key.
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
        raise BundleError(f"{source}: not signed, expected a signature of {trusted}", _ASK_PROVIDER)
    try:
        public.verify(signature, manifest)
    except InvalidSignature as error:
        raise BundleError(
            f"{source}: the signature does not match {trusted}, or the manifest was altered",
            _ASK_PROVIDER,
        ) from error


_ASK_PROVIDER = "ask the provider of the pack and the key; do not install the pack without --trust"


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file}: cannot read the file: {error.strerror}") from error


def _no_key(file: Path, content: str) -> UsageError:
    return UsageError(
        f"{file}: found {content}, expected an Ed25519 key in PEM format",
        "create one with `openssl genpkey -algorithm ed25519 -out key.pem`, and its public key "
        "with `openssl pkey -in key.pem -pubout -out key.pub.pem`",
    )
