"""Exports that cannot be completed, as a client of a real server sees them."""

from __future__ import annotations

import csv
import io
import socket
import threading
import zipfile

import httpx
import numpy as np
import pytest
import uvicorn
from bundles import paint
from factories import dicom, dicom_file
from tiny_service import WAIT_S, Client

from pipeline.service import exports, label_export

KINDS = ("csv", "jsonl", "fhir", "labels", "dicom")


def film(number):
    """A DICOM file of a fractured hand."""
    pixels = paint({"hand": 0.9}, {"hand": 0.9}, strange=number / 255).astype(np.uint16) * 257
    return dicom_file(dicom(pixels, SOPInstanceUID=f"2.25.4{number}"))


@pytest.fixture(scope="module")
def pictures(app):
    """Two reviewed pictures."""
    reader = Client(app, "reader")
    found = [reader.judged(film(number), f"{number}.dcm") for number in (1, 2)]
    for picture in found:
        number = picture["results"][0]["id"]
        reader.post(f"/results/{number}/reviews", json={"verdict": "fracture"})
    return found


@pytest.fixture(scope="module")
def download(app, pictures):
    """Requests an export over TCP."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1/exports/"
        cookies = dict(Client(app, "reader").cookies)
        alone = httpx.Limits(max_keepalive_connections=0)  # an error ends the connection
        with httpx.Client(
            base_url=address, cookies=cookies, timeout=WAIT_S, limits=alone
        ) as client:
            yield client.get
        server.should_exit = True
        thread.join()


def break_after(monkeypatch, count):
    """Let every export fail after a number of pictures."""
    selected = exports.arrivals

    def arrivals(database, selection):
        chunks = selected(database, selection)
        for _ in range(count):
            yield next(chunks)
        raise OSError("disk")

    monkeypatch.setattr(exports, "_CHUNK", 1)
    for module in (exports, label_export):
        monkeypatch.setattr(module, "arrivals", arrivals)


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_sees_that_an_export_is_incomplete(download, monkeypatch, kind):
    whole = download(kind)
    assert whole.status_code == 200
    assert whole.content
    break_after(monkeypatch, 1)
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        download(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_that_fails_at_once_is_answered_with_an_error(download, monkeypatch, kind):
    break_after(monkeypatch, 0)
    answer = download(kind)
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "content-disposition" not in answer.headers


def test_a_file_that_cannot_be_read_to_its_end_ends_the_connection(download, monkeypatch):
    class Faulty(io.BytesIO):
        def read(self, size=-1):
            if self.tell():
                raise OSError("disk")
            return super().read(size)

        def open(self, mode):
            return self

    monkeypatch.setattr(label_export, "_file", lambda row, *_: (f"{row.id}.png", Faulty(b"a")))
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        download("labels")


def test_pictures_without_objects_are_listed(download, service, pictures):
    names = zipfile.ZipFile(io.BytesIO(download("dicom").content)).namelist()
    assert "left-out.csv" not in names
    content = service.blobs.read(pictures[1]["sha256"])
    service.blobs.remove(pictures[1]["sha256"])
    try:
        with zipfile.ZipFile(io.BytesIO(download("dicom").content)) as archive:
            table = archive.read("left-out.csv").decode()
    finally:
        service.blobs.store(content)
    assert list(csv.DictReader(io.StringIO(table))) == [
        {"picture": str(pictures[1]["id"]), "reason": "cannot be read (FileNotFoundError)"}
    ]
