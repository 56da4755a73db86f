"""Sends the outbox: one association carries the objects of a study to a peer.

After an interruption, a receiver may get an object twice. UID and content are then identical, so
the receiver keeps one copy.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pynetdicom
from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]
from sqlalchemy import Row, select

from . import commitment, delivery
from . import tables as t
from .application import Service
from .delivery import Batch
from .dicom_node import disable_library_log
from .dicom_options import DicomOptions

log = logging.getLogger(__name__)

_POLL_S = 1.0
_PEERS = 4
"""Maximum number of peers served concurrently."""
_CONNECT_S = 10.0
_ANSWER_S = 60.0
_REPORT_S = 3.0
"""Time to wait for a storage commitment report on the association of the request."""
_DUPLICATE = 0x0111
_REFUSED = {0x0117, 0x0118, 0x0119, 0x0122}
"""Statuses of permanent refusal, in addition to 0xA9xx and 0xCxxx."""


class Sender:
    """Sends due objects until :meth:`stop`.

    Args:
        service: An open service.
        options: AE title and certificate of this node.

    Raises:
        StartError: A TLS file cannot be used.
    """

    def __init__(self, service: Service, options: DicomOptions) -> None:
        disable_library_log()
        pynetdicom._config.STORE_SEND_CHUNKED_DATASET = True
        self._service, self._options = service, options
        self._context = options.client_context()
        self._wake = threading.Event()
        self._stopping = False
        self._lock = threading.Lock()
        self._busy: set[int] = set()
        self._unreachable: set[int] = set()
        if service.database.is_sqlite:
            service.database.write(delivery.recover)
        self._pool = ThreadPoolExecutor(_PEERS, "fxpipe-sender")
        self._thread = threading.Thread(target=self._run, name="fxpipe-outbox", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Check the outbox immediately."""
        self._wake.set()

    def stop(self) -> None:
        """Finish the objects being sent, then stop."""
        self._stopping = True
        self._wake.set()
        self._thread.join()
        self._pool.shutdown()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(_POLL_S)
            self._wake.clear()
            with self._lock:
                busy = set(self._busy)
            if self._stopping or len(busy) >= _PEERS:
                continue
            try:
                batches = self._due(busy)
            except Exception as error:  # noqa: BLE001  (such as a full disk; retried)
                log.error("cannot read the outbox: %s", type(error).__name__)
                self._wake.wait(10 * _POLL_S)
                continue
            for batch in batches:
                with self._lock:
                    self._busy.add(batch.peer.id)
                self._pool.submit(self._deliver, batch)

    def _due(self, busy: set[int]) -> list[Batch]:
        with self._service.database.read() as connection:
            if not delivery.is_due(connection):
                return []
        return self._service.database.write(lambda c: delivery.claim(c, busy))

    def _deliver(self, batch: Batch) -> None:
        try:
            self._send(batch)
        except Exception as error:  # noqa: BLE001  (error of the database or the disk)
            log.error("cannot send to peer %d: %s", batch.peer.id, type(error).__name__)
            self._postpone(_numbers(batch.unsent, batch.unconfirmed), "an internal error")
        finally:
            study = (*batch.unsent, *batch.unconfirmed)[0].study_id
            self._service.database.submit(lambda c: delivery.add_study_event(c, study))
            with self._lock:
                self._busy.discard(batch.peer.id)
            self.wake()

    def _send(self, batch: Batch) -> None:
        metas = self._metas(batch.unsent)
        unsent = [row for row in batch.unsent if row.id in metas]
        if not unsent and not batch.unconfirmed:
            return
        entity = new_entity(self._options)
        for sop_class in sorted({meta.MediaStorageSOPClassUID for meta in metas.values()}):
            entity.add_requested_context(
                sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
            )
        if batch.peer.commitment:
            entity.add_requested_context(StorageCommitmentPushModel)
        association = associate(entity, batch.peer, self._service, self._context)
        try:
            if not association.is_established:
                self._unreachable.add(batch.peer.id)
                why = "rejected the association" if association.is_rejected else "did not answer"
                self._postpone(_numbers(unsent, batch.unconfirmed), f"the receiver {why}")
                return
            if batch.peer.id in self._unreachable:
                self._unreachable.discard(batch.peer.id)
                self._service.database.write(lambda c: delivery.retry_peer(c, batch.peer.id))
            taken = self._send_all(association, batch.peer, unsent, metas)
            self._confirm(association, batch, taken)
        finally:
            if association.is_established:
                association.release()

    def _metas(self, rows: Sequence[Row[Any]]) -> dict[int, FileMetaDataset]:
        """File Meta Information by row; a row with missing content fails."""
        metas = {}
        for row in rows:
            try:
                metas[row.id] = read_file_meta_info(self._service.blobs.path(row.sha256))
            except Exception:  # noqa: BLE001  (deleted, or damaged)
                self._fail(row.id, "its content is missing")
        return metas

    def _send_all(
        self, association: Association, peer: Row[Any], rows: Sequence[Row[Any]],
        metas: dict[int, FileMetaDataset],
    ) -> list[Row[Any]]:  # fmt: skip
        """Send objects, and store the state of each; return those that need confirmation."""
        taken = []
        for position, row in enumerate(rows):
            if self._stopping or not association.is_established:
                self._postpone(_numbers(rows[position:]), "the association ended early")
                break
            status = self._store(association, row, metas[row.id])
            if status is None:
                self._postpone([row.id], "the receiver did not answer")
                continue
            text = f"0x{status:04X}"
            if status == 0 or status == _DUPLICATE or status >> 12 == 0xB:
                note = None if status == 0 else f"the receiver remarked {text}"
                self._sent(row.id, note, peer.commitment)
                taken.append(row)
            elif status >> 8 == 0xA9 or status >> 12 == 0xC or status in _REFUSED:
                error = f"the receiver refused it ({text})"
                self._fail(row.id, error)
            else:
                self._postpone([row.id], f"the receiver cannot accept it now ({text})")
        return taken if peer.commitment else []

    def _store(self, association: Association, row: Row[Any], meta: FileMetaDataset) -> int | None:
        """Status of C-STORE; None without an answer."""
        path = self._service.blobs.path(row.sha256)
        accepted = {
            context.transfer_syntax[0]
            for context in association.accepted_contexts
            if context.abstract_syntax == meta.MediaStorageSOPClassUID
        }
        if not accepted:
            return 0x0122
        # A file is sent in chunks; a data set is converted in memory.
        as_it_is = meta.TransferSyntaxUID in accepted
        try:
            status = association.send_c_store(path if as_it_is else dcmread(path))
        except RuntimeError:  # the association has ended
            return None
        except (ValueError, AttributeError, OSError):
            return 0xC000
        return int(status.Status) if "Status" in status else None

    def _confirm(self, association: Association, batch: Batch, taken: list[Row[Any]]) -> None:
        """Request storage commitment."""
        rows = [*taken, *batch.unconfirmed]
        if not rows:
            return
        objects = []
        for row in rows:
            meta = read_file_meta_info(self._service.blobs.path(row.sha256))
            objects.append((int(row.id), str(meta.MediaStorageSOPClassUID), row.object_uid))
        possible = association.is_established and any(
            context.abstract_syntax == StorageCommitmentPushModel
            for context in association.accepted_contexts
        )
        error = (
            commitment.request(self._service, association, objects)
            if possible
            else "the receiver does not support storage commitment"
        )
        numbers = [int(row.id) for row in rows]
        self._postpone(numbers, error)
        if error is None:
            self._await_report(numbers)

    def _await_report(self, numbers: list[int]) -> None:
        """Keep the association open briefly, because some receivers send the report on it."""
        pending = select(t.outbox.c.id).where(
            t.outbox.c.id.in_(numbers), t.outbox.c.state == "committing"
        )
        end = time.monotonic() + _REPORT_S
        while time.monotonic() < end and not self._stopping:
            with self._service.database.read() as connection:
                if connection.scalar(pending.limit(1)) is None:
                    return
            time.sleep(0.05)

    def _sent(self, number: int, note: str | None, unconfirmed: bool) -> None:
        free = self._service.database.write(lambda c: delivery.sent(c, number, note, unconfirmed))
        for sha256 in free:
            self._service.unlink(sha256)

    def _postpone(self, numbers: list[int], error: str | None) -> None:
        config = self._service.config
        self._service.database.write(lambda c: delivery.postpone(c, numbers, error, config))

    def _fail(self, number: int, error: str) -> None:
        self._service.database.write(lambda c: delivery.failed(c, number, error))


def _numbers(*groups: Sequence[Row[Any]]) -> list[int]:
    return [int(row.id) for group in groups for row in group]


def new_entity(options: DicomOptions) -> AE:
    """An application entity for one association."""
    entity = AE(ae_title=options.title)
    entity.connection_timeout = _CONNECT_S
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _ANSWER_S
    return entity


def associate(entity: AE, peer: Row[Any], service: Service, context: ssl.SSLContext) -> Association:
    """Connect to a peer; the association is not established if that fails."""
    return entity.associate(
        peer.host, peer.port, ae_title=peer.title,
        evt_handlers=[
            (evt.EVT_N_EVENT_REPORT, lambda event: commitment.receive_report(service, event))
        ],
        tls_args=(context, peer.host) if peer.tls else None,
    )  # fmt: skip


def echo(service: Service, options: DicomOptions, peer: Row[Any]) -> tuple[bool, str]:
    """Verify a connection with C-ECHO; then send the waiting objects of the peer.

    Args:
        service: An open service.
        options: AE title and certificate of this node.
        peer: Row of table ``peer`` with a port.

    Returns:
        Whether the peer responds, and a message.
    """
    disable_library_log()
    entity = new_entity(options)
    entity.add_requested_context(Verification)
    association = associate(entity, peer, service, options.client_context())
    if not association.is_established:
        if association.is_rejected:
            return (
                False,
                "the node rejects the association: add this AE title to its configuration",
            )
        return False, "the node does not answer: check host, port and TLS"
    try:
        status = association.send_c_echo()
    except RuntimeError:
        return False, "the association ended early"
    finally:
        association.release()
    if "Status" not in status or status.Status != 0:
        return False, "the node does not answer C-ECHO"
    service.database.write(lambda c: delivery.retry_peer(c, peer.id))
    return True, "the node answers"
