"""Storage commitment as SCU: a receiver confirms that it has stored objects."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from . import delivery
from .application import Service

log = logging.getLogger(__name__)

_REQUEST = 1
_UNKNOWN, _FAILURE = 0x0112, 0x0110


def request(
    service: Service, association: Association, objects: Sequence[tuple[int, str, str]]
) -> str | None:
    """Ask a receiver to confirm objects (N-ACTION); its report comes later.

    Args:
        service: An open service.
        association: With an accepted context for storage commitment.
        objects: Row number in the outbox, SOP class and SOP instance of each.

    Returns:
        Reason of a refusal; None if the request was accepted.
    """
    transaction_uid = str(generate_uid(prefix=None))
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = [_reference(*one[1:]) for one in objects]
    # Stored first, because the report may arrive before the response.
    numbers = [one[0] for one in objects]
    service.database.write(lambda c: delivery.record_request(c, numbers, transaction_uid))
    try:
        status, _ = association.send_n_action(
            information, _REQUEST, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
    except (RuntimeError, ValueError) as error:
        return f"cannot ask for storage commitment ({type(error).__name__})"
    if "Status" not in status:
        return "no answer to the request for storage commitment"
    if status.Status != 0:
        return f"the request for storage commitment was refused (0x{int(status.Status):04X})"
    return None


def receive_report(service: Service, event: Event) -> tuple[int, Dataset | None]:
    """Process a report (N-EVENT-REPORT).

    Returns:
        Status of the response, and no attributes.
    """
    try:
        information: Any = event.event_information
        stored = {str(one.ReferencedSOPInstanceUID) for one in _items(information, "Referenced")}
        lost = {
            str(one.ReferencedSOPInstanceUID): int(one.get("FailureReason") or _FAILURE)
            for one in _items(information, "Failed")
        }
        transaction_uid = str(information.TransactionUID)
    except Exception:  # noqa: BLE001  (pydicom raises many exception types on malformed content)
        return _FAILURE, None
    try:
        known, free = service.database.write(
            lambda c: delivery.record_report(c, transaction_uid, stored, lost, service.config)
        )
        for sha256 in free:
            service.unlink(sha256)
    except Exception as error:  # noqa: BLE001  (the receiver repeats the report, or is asked again)
        log.error("cannot process a storage commitment report: %s", type(error).__name__)
        return _FAILURE, None
    return (0 if known else _UNKNOWN), None


def _items(information: Any, word: str) -> list[Any]:
    return list(information.get(f"{word}SOPSequence") or [])


def _reference(sop_class: str, sop_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = sop_uid
    return item
