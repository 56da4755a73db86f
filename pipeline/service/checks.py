"""Checks of ``fxpipe doctor`` for a service: port, data folder, database, certificate, peers."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from sqlalchemy import Connection, Row, select
from sqlalchemy.exc import SQLAlchemyError

from .. import lock
from ..diagnosis import Finding, ServicePlan, Verdict
from ..errors import FxpipeError, StartError
from . import schema
from . import tables as t
from .blobs import Blobs
from .database import DATABASE, Database, network_file_system, read_only
from .settings import ServiceConfig

_SOON_DAYS = 30
_PEER_S = 5.0
_DAY_S = 86_400.0


def examine(plan: ServicePlan) -> Iterator[Finding]:
    """Run all checks of a service. They write nothing, and send a C-ECHO to each peer."""
    yield _port(plan)
    yield from _data(plan)
    if plan.certificate is not None:
        yield _certificate(plan.certificate, plan.key)
    yield from _database(plan)


def _port(plan: ServicePlan) -> Finding:
    if lock.is_held(plan.data):
        return Finding(
            "port", Verdict.OK, "a service uses the data folder; its ports are not checked"
        )
    family = socket.AF_INET6 if ":" in plan.host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((plan.host, plan.port))
        except OSError as error:
            return Finding(
                "port", Verdict.FAULT, f"{plan.host} port {plan.port}: {error.strerror}",
                "choose another --port, or stop the program that uses it",
            )  # fmt: skip
    return Finding("port", Verdict.OK, f"{plan.host} port {plan.port} is free")


def _data(plan: ServicePlan) -> Iterator[Finding]:
    place = plan.data
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        yield Finding(
            "data", Verdict.FAULT, f"{plan.data}: not writable",
            "choose another folder with --data, or get write permission",
        )  # fmt: skip
        return
    if plan.database is None and (kind := network_file_system(place)):
        yield Finding(
            "data", Verdict.FAULT,
            f"{plan.data}: a network share ({kind}), which SQLite does not support",
            "choose a folder on a local disk, or use PostgreSQL with --database",
        )  # fmt: skip
        return
    free, reserve = shutil.disk_usage(place).free, ServiceConfig().reserve_bytes
    summary = f"{plan.data}: {free / 1e9:.1f} GB free"
    if free < reserve:
        yield Finding(
            "data", Verdict.FAULT, f"{summary}; uploads are refused below {reserve / 1e9:.1f} GB",
            "free disk space, or set a retention rule",
        )  # fmt: skip
    elif free < 10 * reserve:
        yield Finding("data", Verdict.WARNING, summary, "free disk space, or set a retention rule")
    else:
        yield Finding("data", Verdict.OK, summary)


def _certificate(certificate: Path, key: Path | None) -> Finding:
    try:
        expiry_s = certificate_expiry(certificate, key)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "verify_message", "") or error.strerror or str(error)
        return Finding(
            "TLS", Verdict.FAULT, f"{certificate}: {reason}",
            "give the certificate and its private key as PEM files; renew an expired one",
        )  # fmt: skip
    days = (expiry_s - time.time()) / _DAY_S
    summary = f"{certificate}: valid for {days:.0f} days"
    if days < _SOON_DAYS:
        return Finding("TLS", Verdict.WARNING, summary, "renew it, then restart the service")
    return Finding("TLS", Verdict.OK, summary)


def certificate_expiry(certificate: Path, key: Path | None) -> float:
    """Expiry time of a certificate, in seconds since 1970.

    A TLS handshake in memory verifies that the key matches.

    Raises:
        OSError: A file cannot be read.
        ssl.SSLError: The files are not a certificate and its key, or it has expired.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # trust the certificate itself
    client.load_verify_locations(certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    while not (_advance(ours.do_handshake) & _advance(theirs.do_handshake)):
        pass
    content: dict[str, Any] = ours.getpeercert() or {}
    return float(ssl.cert_time_to_seconds(content["notAfter"]))


def _advance(handshake: Callable[[], None]) -> bool:
    """Continue a handshake; return whether it is complete."""
    try:
        handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _database(plan: ServicePlan) -> Iterator[Finding]:
    try:
        if plan.database is not None:
            with closing(Database(plan.database)) as opened, opened.read() as connection:
                yield from _content(connection, plan)
        elif (plan.data / DATABASE).is_file():
            with read_only(plan.data / DATABASE) as connection:
                yield from _content(connection, plan)
        else:
            yield Finding("database", Verdict.OK, "does not exist yet; the first start creates it")
    except StartError as error:
        yield Finding("database", Verdict.FAULT, str(error), error.hint)
    except (SQLAlchemyError, FxpipeError, ImportError) as error:
        text = f"cannot be read ({type(error).__name__})"
        yield Finding("database", Verdict.FAULT, text, "restore a backup, or check --database")


def _content(connection: Connection, plan: ServicePlan) -> Iterator[Finding]:
    version = schema.refuse_newer(connection)
    if plan.database is None:
        path = plan.data / DATABASE
        is_writable = os.access(path, os.W_OK) and os.access(plan.data, os.W_OK)
    else:
        state = connection.exec_driver_sql("SHOW transaction_read_only").scalar()
        is_writable = state == "off"
    if not is_writable:
        yield Finding("database", Verdict.FAULT, "read-only", "get write permission")
        return
    kind = "SQLite" if plan.database is None else "PostgreSQL"
    if version != schema.newest():
        found = f"{kind}, version {version or 'none'}: the next start upgrades it"
        yield Finding("database", Verdict.OK, f"{found} to {schema.newest()}")
        return
    yield Finding("database", Verdict.OK, f"{kind}, version {version}, writable")
    yield from _files(connection, plan)
    query = select(t.peer).where(t.peer.c.send, t.peer.c.port.is_not(None)).order_by(t.peer.c.id)
    for peer in connection.execute(query).all():
        yield _peer(peer, plan)


def _files(connection: Connection, plan: ServicePlan) -> Iterator[Finding]:
    """Whether the newest stored file exists, to detect a data folder of another database."""
    query = select(t.blob.c.sha256).where(t.blob.c.deleted_ms.is_(None))
    newest = connection.scalar(query.order_by(t.blob.c.created_ms.desc()).limit(1))
    if newest is not None and not Blobs.place(plan.data, newest).exists():
        yield Finding(
            "files", Verdict.FAULT, "the newest picture of the database is not in the data folder",
            "connect the folder of stored files, or restore both from one backup",
        )  # fmt: skip


def _peer(peer: Row[Any], plan: ServicePlan) -> Finding:
    topic = f"peer {peer.title}"
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)  # it logs identifiers
    entity = AE(ae_title=plan.title)
    entity.connection_timeout = entity.acse_timeout = _PEER_S
    entity.dimse_timeout = entity.network_timeout = _PEER_S
    entity.add_requested_context(Verification)
    tls = (ssl.create_default_context(), peer.host) if peer.tls else None
    association = entity.associate(peer.host, peer.port, ae_title=peer.title, tls_args=tls)
    if not association.is_established:
        reason = "rejects the association" if association.is_rejected else "does not answer"
        return Finding(
            topic, Verdict.WARNING, f"{peer.host} port {peer.port} {reason}",
            f"check address, TLS, and whether its configuration has the AE title {plan.title}",
        )  # fmt: skip
    try:
        status = association.send_c_echo()
    except RuntimeError:  # it has ended
        status = None
    finally:
        association.release()
    if status is None or status.get("Status") != 0:
        return Finding(topic, Verdict.WARNING, "does not answer C-ECHO", "check its log")
    return Finding(topic, Verdict.OK, f"{peer.host} port {peer.port} answers C-ECHO")
