"""Outbox states by response of the receiver, and objects from stored results."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from dicom_results import DIGESTS, judged, original
from dicom_service import fractured, free_port, receiver, until
from factories import dicom_file
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian, SecondaryCaptureImageStorage
from service_database import ENGINE
from sqlalchemy import insert, select, update

from pipeline import version
from pipeline.config import RunConfig
from pipeline.outcome_json import to_json
from pipeline.report.dicom.object_provenance import Run
from pipeline.report.dicom.objects import Maker
from pipeline.report.page_row import to_row
from pipeline.service import callers, delivery, outbox, schema, study_objects
from pipeline.service import tables as t
from pipeline.service.application import Service
from pipeline.service.blobs import Blobs, Content
from pipeline.service.database import Database, now_ms, sqlite_url
from pipeline.service.dicom_options import DicomOptions
from pipeline.service.outbox import NewObject
from pipeline.service.sender import Sender
from pipeline.service.settings import ServiceConfig
from pipeline.service.studies import queue_objects
from pipeline.service.view_cache import ViewCache


@pytest.fixture
def opened(tmp_path):
    config = ServiceConfig(first_retry_s=0.2, most_retry_s=0.4, reserve_bytes=0)
    database = Database(sqlite_url(tmp_path))
    schema.upgrade(database)
    yield Service(tmp_path, config, database, Blobs(tmp_path, 0), ViewCache(tmp_path))
    database.close()


def _queue(service, port, **peer):
    """A picture as an object for a receiver."""
    ds = fractured(1)
    content = service.blobs.store(dicom_file(ds))

    def write(connection):
        connection.execute(insert(t.study).values(id=1, key="s", last_seen_ms=now_ms()))
        values = {"tls": False, "receive": False, "commitment": False, **peer}
        connection.execute(
            insert(t.peer).values(
                id=1, title="ARCHIVE", host="127.0.0.1", port=port, send=True,
                created_ms=now_ms(), **values,
            )
        )  # fmt: skip
        one = NewObject(str(ds.SOPInstanceUID), "report", "0" * 64, content)
        assert outbox.add(connection, 1, [one, one], [1], service.blobs.exists) == [1]
        assert outbox.add(connection, 1, [one], [1], service.blobs.exists) == []

    service.database.write(write)
    return content.sha256


def _row(service):
    with service.database.read() as connection:
        return connection.execute(select(t.outbox)).one()


@contextmanager
def _sending(service):
    sender = Sender(service, DicomOptions())
    try:
        yield sender
    finally:
        sender.stop()


@pytest.mark.parametrize(
    ("status", "state", "error"),
    [
        (0x0000, "sent", None),
        (0xB000, "sent", "the receiver remarked 0xB000"),
        (0xB007, "sent", "the receiver remarked 0xB007"),
        (0x0111, "sent", "the receiver remarked 0x0111"),
        (0xA700, "waiting", "the receiver cannot accept it now (0xA700)"),
        (0x0110, "waiting", "the receiver cannot accept it now (0x0110)"),
        (0xA900, "failed", "the receiver refused it (0xA900)"),
        (0xC123, "failed", "the receiver refused it (0xC123)"),
    ],
)
def test_outbox_state_follows_from_the_status(opened, status, state, error):
    with receiver(lambda _: status) as port:
        sha256 = _queue(opened, port)
        with _sending(opened):
            until(lambda: (_row(opened).state, _row(opened).error) == (state, error), 20)
    row = _row(opened)
    assert (row.state, row.error) == (state, error)
    assert opened.blobs.path(sha256).exists() == (state != "sent")


def test_receiver_without_the_class(opened):
    with receiver(lambda _: 0, classes=[SecondaryCaptureImageStorage]) as port:
        _queue(opened, port)
        with _sending(opened):
            until(lambda: _row(opened).state == "failed" or _row(opened).error, 20)
    # All contexts were rejected, which pynetdicom answers by ending the association.
    assert _row(opened).state in ("failed", "waiting")
    assert _row(opened).error


def test_receiver_of_another_transfer_syntax(opened):
    received = []

    def handle(event):
        received.append(event.context.transfer_syntax)
        return 0

    with receiver(handle, syntaxes=[ImplicitVRLittleEndian]) as port:
        _queue(opened, port)
        with _sending(opened):
            until(lambda: _row(opened).state == "sent", 20)
    assert received == [ImplicitVRLittleEndian]


def test_error_between_response_and_transaction(opened, monkeypatch):
    received = []

    def handle(event):
        received.append((event.request.AffectedSOPInstanceUID, event.encoded_dataset()))
        return 0

    sent = Sender._sent

    def ends_once(self, *arguments):
        monkeypatch.setattr(Sender, "_sent", sent)
        raise OSError("the disk is full")

    monkeypatch.setattr(Sender, "_sent", ends_once)
    with receiver(handle) as port:
        _queue(opened, port)
        with _sending(opened):
            until(lambda: _row(opened).state == "sent", 20)
    assert len(received) == 2
    assert received[0] == received[1]


def test_missing_content_fails(opened):
    opened.blobs.remove(_queue(opened, free_port()))
    with _sending(opened):
        until(lambda: _row(opened).state == "failed", 20)
    assert _row(opened).error == "its content is missing"


def test_interrupted_objects_are_sent_again_after_a_restart(opened):
    _queue(opened, free_port())
    (batch,) = opened.database.write(lambda c: delivery.claim(c, ()))
    assert [one.object_uid for one in batch.unsent] == ["2.25.5001"]
    assert opened.database.write(lambda c: delivery.claim(c, ())) == []
    opened.database.write(delivery.recover)
    assert opened.database.write(lambda c: delivery.claim(c, (1,))) == []
    assert len(opened.database.write(lambda c: delivery.claim(c, ()))) == 1


def test_reports_of_storage_commitment(opened):
    sha256 = _queue(opened, free_port(), commitment=True)

    def ask(connection):
        delivery.claim(connection, ())
        assert delivery.sent(connection, 1, None, unconfirmed=True) == []
        delivery.record_request(connection, [1], "2.25.9")

    def confirm(transaction, stored, lost):
        return opened.database.write(
            lambda c: delivery.record_report(c, transaction, stored, lost, opened.config)
        )

    opened.database.write(ask)
    assert confirm("2.25.8", {"2.25.5001"}, {}) == (0, [])
    assert _row(opened).state == "committing"
    assert confirm("2.25.9", set(), {"2.25.5001": 0x0112}) == (1, [])
    row = _row(opened)
    assert (row.state, row.error) == ("waiting", "the receiver has not stored it (0x0112)")
    opened.database.write(lambda c: c.execute(update(t.outbox).values(next_ms=0)))
    opened.database.write(ask)
    assert confirm("2.25.9", {"2.25.5001"}, {}) == (1, [sha256])
    assert _row(opened).state == "sent"
    assert _row(opened).committed_ms is not None
    assert confirm("2.25.9", {"2.25.5001"}, {}) == (0, [])


def test_content_is_deleted_when_no_peer_needs_it(opened):
    port = free_port()
    sha256 = _queue(opened, port)
    one = NewObject("2.25.5001", "report", "0" * 64, Content(sha256, 1))

    def add_peer(connection):
        connection.execute(
            insert(t.peer).values(
                id=2, title="OTHER", host="127.0.0.1", port=port, tls=False, receive=False,
                send=True, commitment=False, created_ms=now_ms(),
            )
        )  # fmt: skip
        assert outbox.add(connection, 1, [one], [2], opened.blobs.exists) == [2]

    def forget(peer):
        for free in opened.database.write(
            lambda c: outbox.delete_rows(c, t.outbox.c.peer_id == peer)
        ):
            opened.unlink(free)

    opened.database.write(add_peer)
    forget(1)
    assert opened.blobs.path(sha256).exists()
    forget(2)
    assert not opened.blobs.path(sha256).exists()


def test_pauses_double_up_to_a_limit():
    config = ServiceConfig(first_retry_s=10, most_retry_s=100)
    pauses = [delivery.pause_s(tries, config) for tries in (0, 1, 2, 3, 50)]
    for pause, longest in zip(pauses, (10, 20, 40, 80, 100), strict=True):
        assert longest / 2 <= pause <= longest


def test_rejected_nodes_are_counted_and_limited(opened):
    def write(connection):
        for number in range(250):
            callers.record_rejected(connection, f"T{number}", "10.0.0.1")
        callers.record_rejected(connection, "T249", "10.0.0.1")

    opened.database.write(write)
    with opened.database.read() as connection:
        rows = connection.execute(select(t.caller).order_by(t.caller.c.id)).all()
    assert len(rows) == 200
    assert rows[-1].count == 2


def test_objects_from_stored_results_equal_those_of_a_run(tmp_path):
    """Identical UIDs and contours."""
    path = original(tmp_path)
    run = Run("1", DIGESTS, RunConfig(identifiers="keep"))
    (outcome,) = judged(path)
    expected = Maker(run).objects(outcome)
    stored, row = to_json(outcome), to_row(outcome, tmp_path, 0.5)
    made = Maker(run).objects(study_objects.restored(path, stored, row, run.config))
    assert [(one.kind, one.uid, one.series) for one in made] == [
        (one.kind, one.uid, one.series) for one in expected
    ]
    for one, other in zip(made, expected, strict=True):
        found, wanted = (_contour(each.content, tmp_path) for each in (one, other))
        assert len(found) == len(wanted)
        for line, correct in zip(found, wanted, strict=True):
            assert np.abs(line.mean(0) - correct.mean(0)).max() < 1.0


def _contour(content, folder):
    path = folder / "object.dcm"
    path.write_bytes(content)
    lines = []
    for annotation in dcmread(path).get("GraphicAnnotationSequence", []):
        for graphic in annotation.get("GraphicObjectSequence", []):
            lines.append(np.reshape(graphic.GraphicData, (-1, 2)))
    return lines


def test_negative_pictures_have_only_a_report(tmp_path):
    path = original(tmp_path)
    run = Run("1", DIGESTS, RunConfig(identifiers="keep"))
    (outcome,) = judged(path, {"hand": 0.01})
    stored, row = to_json(outcome), to_row(outcome, tmp_path, 0.5)
    made = Maker(run).objects(study_objects.restored(path, stored, row, run.config))
    assert [one.kind.value for one in made] == ["report"]
    engine: Any = SimpleNamespace(settings={"operating_point": "x"}, digests=DIGESTS)
    assert study_objects.engine_run(engine, RunConfig()).config.operating_point == "x"


def test_objects_after_a_promotion_match_the_displayed_results(opened, tmp_path):
    """A picture that the promoted engine has not judged keeps the objects of the earlier engine."""
    names = {"both": "2.25.1004", "old": "2.25.1005", "removed": "2.25.1006"}
    paths = {n: original(tmp_path, name=f"{n}.dcm", SOPInstanceUID=u) for n, u in names.items()}
    outcomes = {name: judged(path)[0] for name, path in paths.items()}
    digests = {1: DIGESTS, 2: DIGESTS | {"trunk": "4" * 64}}
    contents = {name: opened.blobs.store(path.read_bytes()) for name, path in paths.items()}

    def write(connection):
        connection.execute(insert(t.study).values(id=1, key="s", last_seen_ms=0))
        connection.execute(
            insert(t.peer).values(
                id=1, title="ARCHIVE", host="127.0.0.1", port=1, tls=False, receive=False,
                send=True, commitment=False, created_ms=0,
            )
        )  # fmt: skip
        for number, state in ((1, "retired"), (2, "active")):
            values = {"id": number, "digest": str(number) * 64, "digests": digests[number]}
            connection.execute(insert(t.engine).values(**{**ENGINE, **values, "state": state}))
        for name, content in contents.items():
            connection.execute(
                insert(t.blob).values(sha256=content.sha256, size=content.size, created_ms=0)
            )
            _add_result(connection, outcomes[name], tmp_path, engine=1)
        _add_result(connection, outcomes["both"], tmp_path, engine=2)
        for name, engine in (("both", 2), ("both", 2), ("old", 1)):  # one of them twice
            _add_arrival(connection, contents[name].sha256, engine)
        _add_arrival(connection, contents["removed"].sha256, 1, deleted_ms=1)

    opened.database.write(write)
    expected = set()
    for name, engine in (("both", 2), ("old", 1)):
        run = Run(version(), digests[engine], RunConfig(identifiers="keep"))
        expected |= {one.uid for one in Maker(run).objects(outcomes[name])}
    assert len(expected) == 6
    assert queue_objects(opened, 1) == 6
    with opened.database.read() as connection:
        assert set(connection.scalars(select(t.outbox.c.object_uid))) == expected


def _add_result(connection, outcome, folder, engine):
    sha256 = outcome.image.sha256
    values = {"sha256": sha256, "engine_id": engine, "created_ms": 0}
    job = insert(t.job).values(name="x", state="done", priority=0, attempt=1, **values)
    (number,) = connection.execute(job).inserted_primary_key
    result = insert(t.result).values(
        job_id=number, frame=-1, status="ok", answer="positive", rank=0, **values
    )
    (number,) = connection.execute(result).inserted_primary_key
    row = to_row(outcome, folder, 0.5)
    connection.execute(insert(t.detail).values(result_id=number, outcome=to_json(outcome), row=row))


def _add_arrival(connection, sha256, engine, **values):
    connection.execute(
        insert(t.arrival).values(
            sha256=sha256, name="x", source="dicom", sender="dicom:X", received_ms=0, study_id=1,
            engine_id=engine, state="answered", rank=0, **values,
        )
    )  # fmt: skip
