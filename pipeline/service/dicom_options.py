"""Settings of the DICOM connections of a service."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import StartError

TITLE = "FXPIPE"
_SILENT_S = 60.0
"""Seconds without a byte inside a message after which a TLS connection is closed."""


@dataclass(frozen=True, slots=True)
class DicomOptions:
    """How a service receives and sends over DICOM.

    Attributes:
        port: TCP port; None to receive nothing.
        host: Address to listen on.
        title: AE title of this node.
        tls: Whether to receive over TLS only; requires ``certificate`` and ``key``.
        certificate: PEM file of the certificate of this node, also for receivers that request one.
        key: PEM file of its private key.
        authority: PEM file of the certificate authorities for callers and receivers. None: callers
            need no certificate, and receivers need one that this machine trusts.
    """

    port: int | None = None
    host: str = "127.0.0.1"
    title: str = TITLE
    tls: bool = False
    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None

    def server_context(self) -> ssl.SSLContext | None:
        """The TLS context for receiving; None without TLS.

        Raises:
            StartError: A file cannot be used.
        """
        if not self.tls:
            return None
        context = _ServerContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._load(context)
        if self.authority is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self) -> ssl.SSLContext:
        """The TLS context for sending.

        Raises:
            StartError: A file cannot be used.
        """
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
            if self.authority is not None:
                context.load_verify_locations(self.authority)
        except (OSError, ssl.SSLError) as error:
            raise StartError(
                f"cannot use the certificate, key or authorities for DICOM over TLS "
                f"({type(error).__name__})",
                "give a certificate and its private key as PEM files",
            ) from error


class _ServerContext(ssl.SSLContext):
    """Performs the TLS handshake in the thread of the association.

    pynetdicom wraps a socket in the thread that accepts connections; a client that sends nothing
    would block it.
    """

    def wrap_socket(self, sock: socket.socket, *_: Any, **__: Any) -> ssl.SSLSocket:
        """See :class:`ssl.SSLContext`."""
        sock.settimeout(_SILENT_S)
        return super().wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
