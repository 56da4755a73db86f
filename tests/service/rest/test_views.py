"""Views that are not in the cache are rendered again."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import Future

import numpy as np
import pytest
from bundles import paint
from factories import dicom, dicom_file
from tiny_service import WAIT_S, Client, positive, tiny_service, until

from pipeline.service import backup
from pipeline.service.api import frames
from pipeline.service.judging import Judging

VIEWS = ("view", "thumb", "heatmap", "pixels")


def frame_of(client, picture, name, frame=0):
    return client.get(f"/pictures/{picture}/frames/{frame}/{name}")


def cached(service):
    return [path for path in (service.folder / "cache").rglob("*") if path.is_file()]


def test_a_restored_service_shows_the_same_views(app, reader, tmp_path):
    picture = reader.judged(positive())["id"]
    before = {name: frame_of(reader, picture, name).content for name in VIEWS}
    service = app.state.service
    backup.back_up(service.folder, tmp_path / "backup")
    backup.restore(tmp_path / "backup", tmp_path / "data")
    with tiny_service(tmp_path, service.folder.parent / "weights") as restored:
        restored_reader = Client(restored, "reader")
        answers = {name: frame_of(restored_reader, picture, name) for name in VIEWS}
        assert {answer.status_code for answer in answers.values()} == {200}
        assert {name: answer.content for name, answer in answers.items()} == before
        assert len(cached(restored.state.service)) == 1


def test_every_frame_is_rendered_again(service, reader):
    two = np.stack([paint({"hand": 0.9}, {"hand": f}, strange=0.9) for f in (0.1, 0.9)])
    picture = reader.judged(dicom_file(dicom(two.astype(np.uint16) * 257)), "two.dcm")["id"]
    before = [frame_of(reader, picture, "view", n).content for n in range(2)]
    assert before[0] != before[1]
    shutil.rmtree(service.folder / "cache")
    assert [frame_of(reader, picture, "view", n).content for n in range(2)] == before
    assert len(cached(service)) == 2
    assert frame_of(reader, picture, "view", 2).status_code == 404


def test_a_picture_that_could_not_be_read_has_no_view(reader):
    broken = reader.judged(positive()[:62], "broken.png")["id"]
    assert frame_of(reader, broken, "view").status_code == 404


def test_a_view_is_not_kept_of_a_picture_that_is_deleted_meanwhile(service, reader, monkeypatch):
    picture = reader.judged(positive())["id"]
    shutil.rmtree(service.folder / "cache")
    decoded = frames._decoded

    def decode_and_delete(*arguments):
        image = decoded(*arguments)
        service.remove(picture, "admin")
        return image

    monkeypatch.setattr(frames, "_decoded", decode_and_delete)
    assert frame_of(reader, picture, "view").status_code == 200
    assert cached(service) == []


def test_a_picture_that_is_deleted_while_it_is_judged_leaves_no_view(service, reader, monkeypatch):
    result, deleted = Judging._result, threading.Event()
    number: Future[int] = Future()

    def delete(judging, outcome):
        service.remove(number.result(), "admin")
        deleted.set()
        return result(judging, outcome)

    monkeypatch.setattr(Judging, "_result", delete)
    before = cached(service)
    number.set_result(reader.send_file(positive()))
    assert deleted.wait(WAIT_S)
    until(lambda: service.judging.is_busy, lambda busy: not busy)
    assert cached(service) == before


@pytest.mark.parametrize("name", ["view", "pixels"])
def test_a_view_of_a_missing_file_is_not_found(service, reader, name):
    picture = reader.judged(positive())
    shutil.rmtree(service.folder / "cache")
    service.blobs.remove(picture["sha256"])
    assert frame_of(reader, picture["id"], name).status_code == 404
