"""Studies whose verdict changes with a promotion are sent again."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from bundles import paint
from dicom_results import judged, original
from dicom_service import receiver
from factories import dicom, dicom_file
from service_database import ENGINE
from sqlalchemy import insert, select
from tiny_networks import with_threshold, write_bundles
from tiny_service import Client, tiny_service, until

from pipeline.report.page_row import to_row
from pipeline.service import dicom as parts
from pipeline.service import engine_table, studies, study_objects
from pipeline.service import tables as t
from pipeline.service.database import insert_row
from pipeline.service.dicom_options import DicomOptions

SHA256 = "a" * 64


def row(folder, **probabilities):
    """A row of the page whose findings are positive from 0.5 and uncertain from 0.3."""
    return to_row(judged(original(folder), probabilities)[0], folder, 0.5)


@pytest.fixture
def stored(database, tmp_path):
    """Stores a study with one picture that two engines have judged; the second one is promoted."""

    def store(before, after, *, sent=True):
        database.write(partial(_write, before, after, sent))

    return store


def _write(before, after, sent, connection):
    add = partial(insert_row, connection)
    for number, state in ((1, "retired"), (2, "active")):
        add(t.engine, **{**ENGINE, "digest": str(number) * 64, "state": state})
    connection.execute(insert(t.blob).values(sha256=SHA256, size=1, created_ms=0))
    add(t.study, key="s", last_seen_ms=1, stable_ms=2)
    add(
        t.arrival, sha256=SHA256, name="x", source="dicom", sender="x", received_ms=0, study_id=1,
        engine_id=1, state="answered", rank=0,
    )  # fmt: skip
    for engine, (status, found) in enumerate((before, after), start=1):
        own = {"sha256": SHA256, "engine_id": engine, "created_ms": 0}
        job = add(t.job, name="x", state="done", priority=0, **own)
        result = add(
            t.result, job_id=job, frame=-1, status=status, answer="positive", rank=0, **own
        )
        connection.execute(insert(t.detail).values(result_id=result, outcome={}, row=found))
    if sent:
        peer = {"title": "A", "host": "h", "receive": False, "send": True, "tls": False}
        add(t.peer, created_ms=0, **peer)
        add(
            t.outbox, object_uid="2.25.1", peer_id=1, study_id=1, sha256="b" * 64, source=SHA256,
            kind="report", state="sent", next_ms=0, created_ms=0,
        )  # fmt: skip
    progress = {"engine": 2, "after": 0}
    connection.execute(insert(t.setting).values(key=engine_table.PROMOTION, value=progress))


def is_due(database):
    while database.write(engine_table.refresh_some):
        pass
    with database.read() as connection:
        study = connection.execute(select(t.study)).one()
        assert connection.scalar(select(t.arrival.c.engine_id)) == 2
        assert study.last_seen_ms == 1
        assert studies.stable(connection, 1.0) == ([] if study.stable_ms else [1])
    return study.stable_ms is None


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"hand": 0.9}, {"hand": 0.4}, True),
        ({"hand": 0.9}, {"hand": 0.8}, False),
        ({"hand": 0.9, "elbow": 0.1}, {"hand": 0.9, "elbow": 0.4}, True),
        ({"hand": 0.9}, {"hand": 0.9, "elbow": 0.1}, True),
    ],
)
def test_a_study_is_due_again_if_a_verdict_changed(
    database, stored, tmp_path, before, after, expected
):
    stored(("ok", row(tmp_path, **before)), ("ok", row(tmp_path, **after)))
    assert is_due(database) == expected


def test_a_picture_that_gets_another_status_makes_its_study_due(database, stored, tmp_path):
    found = row(tmp_path, hand=0.9)
    stored(("ok", found), ("unsupported", found | {"findings": []}))
    assert is_due(database)


def test_a_study_that_was_not_sent_stays_so(database, stored, tmp_path):
    stored(("ok", row(tmp_path, hand=0.9)), ("ok", row(tmp_path, hand=0.1)), sent=False)
    assert not is_due(database)


def film(study, fracture):
    """A DICOM file of a hand."""
    pixels = paint({"hand": 0.9}, {"hand": fracture}).astype(np.uint16) * 257
    made = dicom(pixels, StudyInstanceUID=f"2.25.7{study}", SOPInstanceUID=f"2.25.8{study}")
    return dicom_file(made)


@pytest.fixture
def sending(tmp_path):
    """An administrator of a service that sends to an archive, and what the archive has got."""
    received = []

    def take(event):
        received.append(event.dataset)
        return 0

    weights = write_bundles(tmp_path / "weights")
    with (
        receiver(take) as port,
        tiny_service(tmp_path, weights, stable_s=0.1) as app,
        parts.running(app.state.service, DicomOptions(), receives=False),
    ):
        admin = Client(app, "admin")
        peer = {"title": "ARCHIVE", "host": "127.0.0.1", "port": port, "send": True}
        assert admin.post("/peers", json=peer).status_code == 201
        yield admin, received


def promoted(admin, weights, count):
    """Promote other weights as soon as they have judged a number of pictures."""
    number = admin.post("/engines", json={"weights": str(weights)}).json()["id"]

    def judged_by():
        return next(one for one in admin.get("/engines").json() if one["id"] == number)

    until(judged_by, lambda engine: engine["judged"] >= count)
    assert admin.post(f"/engines/{number}/promote").status_code == 204


def is_sent(admin, count):
    def objects():
        return admin.get("/outbox?limit=200").json()["objects"]

    return until(
        objects, lambda found: len(found) == count and {one["state"] for one in found} == {"sent"}
    )


def test_the_archive_gets_new_objects_of_the_studies_whose_verdict_changed(sending, tmp_path):
    admin, received = sending
    changes, stays = (
        admin.judged(film(number, fracture))["study"] for number, fracture in ((1, 0.55), (2, 0.9))
    )
    first = is_sent(admin, 6)
    promoted(admin, with_threshold(tmp_path / "strict", 0.9), 2)
    every = is_sent(admin, 9)
    assert sorted(one["study"] for one in first) == [changes] * 3 + [stays] * 3
    new = {one["uid"] for one in every} - {one["uid"] for one in first}
    assert {one["study"] for one in every if one["uid"] in new} == {changes}
    assert [str(ds.SOPInstanceUID) in new for ds in received] == [False] * 6 + [True] * 3


def test_objects_of_results_that_are_no_longer_shown_are_not_queued(sending, tmp_path, monkeypatch):
    """The promotion comes while objects are made from the results before it."""
    admin, received = sending
    make, calls = study_objects.objects, []

    def objects(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            promoted(admin, with_threshold(tmp_path / "strict", 0.9), 1)
            while admin.service.database.write(engine_table.refresh_some):
                pass
        return make(*arguments)

    monkeypatch.setattr(study_objects, "objects", objects)
    study = admin.judged(film(3, 0.55))["study"]
    until(lambda: admin.get(f"/studies/{study}").json(), lambda found: found["stable"])
    is_sent(admin, 3)
    assert len(received) == 3
    assert len(calls) == 2
