"""DICOM node: C-ECHO, C-STORE and reports of storage commitment, for known peers.

An AE title does not authenticate a peer: every node that can connect can use it. TLS with client
certificates authenticates peers.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pynetdicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]
from sqlalchemy import Connection, select

from ..errors import StartError
from ..io.frames import COMPRESSIONS, why_unreadable
from . import (
    arrivals,
    callers,
    commitment,
    engine_state,
    instances,
    job_queue,
    results,
)
from . import tables as t
from .application import Service
from .arrivals import Arrival
from .blobs import Content, DiskFullError
from .dicom_options import DicomOptions
from .instances import Header

log = logging.getLogger(__name__)

CLASSES = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
)
"""The SOP classes of radiographs."""
_PLAIN = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)
SUCCESS, NOT_AUTHORISED, NO_RESOURCES, MISMATCH, NOT_UNDERSTOOD = 0, 0x0124, 0xA700, 0xA900, 0xC000
_REJECTED = 1, 1, 3
"""Permanent, by the service user: the calling AE title is not recognized."""
_IMPLEMENTATION = UID("2.25.126698273012907340823176823093512904671")
_PART = 2**20
_TIMEOUT_S = 60.0
_ABANDONED_S = 600.0
"""Age in seconds above which an unfinished file belongs to an ended association."""
_SWEEP_S = 60.0


def syntaxes() -> list[UID]:
    """All transfer syntaxes that can be decoded, in order of preference."""
    return [*_PLAIN, *(UID(one) for one in COMPRESSIONS if not why_unreadable(UID(one)))]


def disable_library_log() -> None:
    """Disable the log of pynetdicom, because its messages contain identifiers."""
    logger = logging.getLogger("pynetdicom")
    logger.handlers = [logging.NullHandler()]
    logger.propagate = False
    pynetdicom._config.LOG_HANDLER_LEVEL = "none"


@contextmanager
def listening(service: Service, options: DicomOptions, temporary: Path) -> Iterator[int]:
    """Receive pictures during the block.

    Args:
        service: An open service.
        options: DICOM settings with a port; 0 for a free port.
        temporary: Folder for files that are being received.

    Yields:
        The port.

    Raises:
        StartError: The address is in use, or a TLS file cannot be used.
    """
    disable_library_log()
    node = _Node(service, options, temporary)
    entity = AE(ae_title=options.title)
    entity.maximum_associations = service.config.associations
    entity.network_timeout = entity.dimse_timeout = _TIMEOUT_S
    entity.acse_timeout = _TIMEOUT_S
    entity.maximum_pdu_size = 2**17
    known = syntaxes()
    for sop_class in CLASSES:
        entity.add_supported_context(sop_class, known)
    entity.add_supported_context(Verification)
    entity.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    handlers: list[Any] = [
        (evt.EVT_REQUESTED, node.on_request),
        (evt.EVT_C_ECHO, node.on_echo),
        (evt.EVT_C_STORE, node.on_store),
        (evt.EVT_N_EVENT_REPORT, node.on_report),
    ]
    pynetdicom._config.STORE_RECV_CHUNKED_DATASET = True
    tempfile.tempdir = str(temporary)  # pynetdicom has no other setting for the folder
    try:
        server = entity.start_server(
            (options.host, options.port or 0), block=False, evt_handlers=handlers,
            ssl_context=options.server_context(),
        )  # fmt: skip
    except OSError as error:
        raise StartError(
            f"cannot listen on {options.host} port {options.port} ({error.strerror})",
            "choose another --dicom-port",
        ) from error
    assert server is not None and server.socket is not None  # noqa: S101, PT018
    try:
        yield int(server.socket.getsockname()[1])
    finally:
        entity.shutdown()


class _Node:
    """Event handlers, which never raise or abort an association."""

    def __init__(self, service: Service, options: DicomOptions, temporary: Path) -> None:
        self._service, self._title, self._temporary = service, options.title, temporary
        self._swept = time.monotonic()

    def on_request(self, event: Event) -> None:
        """Reject and record associations of nodes that are not peers."""
        self._sweep()
        title, host = _caller(event)
        try:
            known = self._service.config.accept_any or self._peer(title, host) is not None
        except Exception as error:  # noqa: BLE001
            log.error("cannot look up a DICOM peer: %s", type(error).__name__)
            event.assoc.acse.send_reject(2, 3, 1)
            event.assoc.kill()
            return
        if known:
            return
        log.warning("rejected the DICOM node %s at %s: not a peer", title, host)
        with suppress(RuntimeError):  # the service is shutting down
            self._service.database.submit(lambda c: callers.record_rejected(c, title, host))
        event.assoc.acse.send_reject(*_REJECTED)
        event.assoc.kill()

    def on_echo(self, _: Event) -> int:
        """Answer C-ECHO."""
        return SUCCESS

    def on_store(self, event: Event) -> int | Dataset:
        """Receive a picture: 0x0000 means that it is stored and will be judged."""
        title, host = _caller(event)
        try:
            return self._store(event, title, host)
        except DiskFullError:
            return _status(NO_RESOURCES, "the disk is full")
        except Exception as error:  # noqa: BLE001  (the sender keeps the picture and retries)
            log.error("cannot receive a picture over DICOM: %s", type(error).__name__)
            return _status(NO_RESOURCES, "cannot store, retry later")

    def on_report(self, event: Event) -> tuple[int, Dataset | None]:
        """Process a storage commitment report."""
        return commitment.receive_report(self._service, event)

    def _store(self, event: Event, title: str, host: str) -> int | Dataset:
        service = self._service
        peer = self._peer(title, host)
        if not (service.config.accept_any or (peer is not None and peer.receive)):
            return _status(NOT_AUTHORISED, "this node may not send pictures")
        path: Path = event.dataset_path
        size = path.stat().st_size
        if size > service.config.most_bytes:
            return _status(NOT_UNDERSTOOD, "larger than allowed")
        if not service.blobs.has_room(size):
            return _status(NO_RESOURCES, "the disk is full")
        if self._is_overloaded():
            return _status(NO_RESOURCES, "too many pictures wait")
        request: Any = event.request
        sop_class, sop_uid = str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)
        with path.open("rb") as file, service.blobs.receive() as receiving:
            receiving.write(file_meta(sop_class, sop_uid, str(event.context.transfer_syntax)))
            file.seek(140)
            file.seek(144 + int.from_bytes(file.read(4), "little"))
            while part := file.read(_PART):
                receiving.write(part)
            header = instances.read_header(receiving.path)
            if header is None:
                return _status(NOT_UNDERSTOOD, "found no UIDs of study, series and instance")
            found = header.columns["sop_class"], header.columns["sop_uid"]
            if found != (sop_class, sop_uid):
                return _status(MISMATCH, "the data set does not match the request")
            content = receiving.keep()
        receive_instance(service, content, header, "dicom", f"dicom:{title}")
        return SUCCESS

    def _peer(self, title: str, host: str) -> Any:
        with self._service.database.read() as connection:
            rows = connection.execute(select(t.peer).where(t.peer.c.title == title)).all()
        return next((row for row in rows if host in _addresses(row.host)), None)

    def _is_overloaded(self) -> bool:
        with self._service.database.read() as connection:
            active = engine_state.active_engine(connection)
            waiting = 0 if active is None else job_queue.waiting(connection, active.id)
        return waiting >= self._service.config.most_waiting

    def _sweep(self) -> None:
        """Remove unfinished files of ended associations."""
        now = time.monotonic()
        if now - self._swept < _SWEEP_S:
            return
        self._swept = now
        for path in self._temporary.glob("tmp*.dcm"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()


def receive_instance(
    service: Service, content: Content, header: Header, source: str, sender: str
) -> int:
    """Register a stored DICOM file as a picture of its study.

    A file that the same sender repeats is not a new picture.

    Args:
        service: An open service.
        content: The file, durable.
        header: Its header.
        source: ``dicom`` or ``http``.
        sender: See :class:`.arrivals.Arrival`.

    Returns:
        Number of the picture.

    Raises:
        ContentGoneError: It was deleted in the meantime.
    """
    name = f"{header.columns['sop_uid']}.dcm"
    arrival = Arrival(content, name, source, sender, f"content {content.sha256}")

    def write(connection: Connection) -> int:
        number, is_new = arrivals.receive(connection, arrival, service.blobs.exists)
        instances.register(connection, content.sha256, header)
        state = connection.scalar(select(t.arrival.c.state).where(t.arrival.c.id == number))
        if is_new and state == "waiting":
            uid = header.columns["study_uid"]
            results.join_study(connection, content.sha256, uid, header.identity)
        return number

    number = service.database.write(write)
    service.wake()
    return number


def file_meta(sop_class: str, sop_uid: str, syntax: str) -> bytes:
    """Preamble and File Meta Information; identical for repeated transfers of an object."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(sop_uid)
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = _IMPLEMENTATION
    meta.ImplementationVersionName = "FXPIPE"
    file = DicomBytesIO()
    file.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(file, meta)
    return bytes(file.getvalue())


def _caller(event: Event) -> tuple[str, str]:
    """AE title and address of the other side."""
    requestor = event.assoc.requestor
    primitive: Any = requestor.primitive
    title = str(primitive.calling_ae_title if primitive else requestor.ae_title).strip()
    return title, _canonical(str(requestor.address))


def _canonical(address: str) -> str:
    """Canonical form of an address; IPv4-mapped IPv6 addresses become IPv4."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def _addresses(host: str) -> set[str]:
    """All addresses of a host; empty for an unknown name."""
    with suppress(ValueError):
        return {str(ipaddress.ip_address(host))}
    with suppress(OSError):
        return {_canonical(str(found[4][0])) for found in socket.getaddrinfo(host, None)}
    return set()


def _status(code: int, comment: str) -> Dataset:
    """A status with a comment of at most 64 characters."""
    status = Dataset()
    status.Status = code
    status.ErrorComment = comment
    return status
