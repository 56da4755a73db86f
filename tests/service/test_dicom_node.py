"""Pictures received by C-STORE from dcmtk."""

from __future__ import annotations

import socket
import ssl
import subprocess

import httpx
import pytest
from dicom_service import dcmtk, found, fractured, service, storescu, until
from factories import IDENTIFIERS, compressed, dicom_file
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from tiny_networks import write_bundles

pytestmark = pytest.mark.skipif(not found("storescu"), reason="dcmtk is not installed")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_bundles(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def running(weights, tmp_path_factory):
    with service(tmp_path_factory.mktemp("data"), weights) as started:
        started.add_peer(title="MODALITY", receive=True)
        yield started


def test_stored_picture_is_judged_and_unchanged(running, tmp_path):
    dcmtk("echoscu", "-aet", "MODALITY", "-aec", "FXPIPE", "127.0.0.1", str(running.dicom_port))
    path = tmp_path / "one.dcm"
    path.write_bytes(dicom_file(fractured(1, StudyInstanceUID="2.25.801")))
    storescu(running.dicom_port, path)
    (picture,) = (p for p in running.judged(1) if p["name"] == "2.25.5001.dcm")
    assert (picture["source"], picture["answer"]) == ("dicom", "positive")
    assert picture["study"] is not None
    stored = running.data / "blobs" / picture["sha256"][:2] / picture["sha256"]
    meta = dcmread(stored).file_meta
    assert stored.read_bytes()[128:132] == b"DICM"
    assert meta.MediaStorageSOPInstanceUID == "2.25.5001"
    assert dcmread(stored).pixel_array.tolist() == dcmread(path).pixel_array.tolist()


def test_repeated_picture_is_not_added_again(running, tmp_path):
    path = tmp_path / "twice.dcm"
    path.write_bytes(dicom_file(fractured(2, StudyInstanceUID="2.25.802")))
    for _ in range(2):
        storescu(running.dicom_port, path)
    assert [p["name"] for p in running.judged(1)].count("2.25.5002.dcm") == 1


def test_unknown_node_is_rejected_and_listed(running, tmp_path):
    path = tmp_path / "unknown.dcm"
    path.write_bytes(dicom_file(fractured(3)))
    output = storescu(running.dicom_port, path, title="UNKNOWN", expected=1)
    assert "Calling AE Title Not Recognized" in output
    (caller,) = until(lambda: running.get("/callers"))
    assert (caller["title"], caller["host"]) == ("UNKNOWN", "127.0.0.1")
    assert "2.25.5003.dcm" not in [p["name"] for p in running.pictures()]
    running.add_peer(title="UNKNOWN", receive=True)
    assert running.get("/callers") == []
    storescu(running.dicom_port, path, title="UNKNOWN")
    assert "2.25.5003.dcm" in [p["name"] for p in running.judged(1)]


def test_node_that_only_receives_may_not_send(running, tmp_path):
    running.add_peer(title="ARCHIVE", receive=False, send=False)
    path = tmp_path / "archive.dcm"
    path.write_bytes(dicom_file(fractured(4)))
    assert "0x124" in storescu(running.dicom_port, path, title="ARCHIVE", expected=None)


SYNTAXES = {
    ImplicitVRLittleEndian: "-xi",
    ExplicitVRBigEndian: "-xb",
    DeflatedExplicitVRLittleEndian: "-xd",
    RLELossless: "-xr",
    JPEGLosslessSV1: "-xs",
    JPEGLSLossless: "-xt",
    JPEG2000Lossless: "-xv",
    JPEGBaseline8Bit: "-xy",
}


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.keyword)
def test_every_transfer_syntax_is_accepted(running, tmp_path, syntax):
    number = 100 + list(SYNTAXES).index(syntax)
    ds = fractured(number, StudyInstanceUID=f"2.25.9{number}")
    if syntax == JPEGBaseline8Bit:
        pixels = (ds.pixel_array // 16).astype("u1")
        ds.BitsAllocated = ds.BitsStored = 8
        ds.HighBit, ds.PixelData = 7, pixels.tobytes()
        ds["PixelData"].VR = "OB"
    content = compressed(ds, syntax, tmp_path) if syntax.is_compressed else dicom_file(ds, syntax)
    if syntax == DeflatedExplicitVRLittleEndian:
        content = dicom_file(ds, syntax)
    path = tmp_path / "sent.dcm"
    path.write_bytes(content)
    words = ("-aet", "MODALITY", "-aec", "FXPIPE", SYNTAXES[syntax])
    dcmtk("storescu", *words, "127.0.0.1", str(running.dicom_port), str(path))
    name = f"2.25.500{number}.dcm"
    (picture,) = (p for p in running.judged(1) if p["name"] == name)
    assert picture["answer"] == "positive"
    stored = running.data / "blobs" / picture["sha256"][:2] / picture["sha256"]
    assert dcmread(stored).file_meta.TransferSyntaxUID == syntax


def test_log_has_no_identifiers(running, tmp_path):
    path = tmp_path / "named.dcm"
    path.write_bytes(dicom_file(fractured(7)))
    storescu(running.dicom_port, path)
    running.judged(1)
    text = running.log.read_text()
    assert not [word for word in (*IDENTIFIERS, "2.25.500") if word in text]


def test_full_queue_and_full_disk_are_reported(weights, tmp_path):
    path = tmp_path / "one.dcm"
    path.write_bytes(dicom_file(fractured(1)))
    with service(tmp_path / "data", weights, accept_any="true", reserve_bytes=2**60) as full:
        output = storescu(full.dicom_port, path, expected=None)
        assert "0xa700" in output.lower() or "OutOfResources" in output, output
        assert full.pictures() == []


def test_tls_with_client_certificates(weights, tmp_path):
    certificate, key = tmp_path / "own.pem", tmp_path / "own.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    path = tmp_path / "one.dcm"
    path.write_bytes(dicom_file(fractured(1)))
    words = (
        *("--tls-certificate", str(certificate), "--tls-key", str(key), "--dicom-tls"),
        *("--dicom-authority", str(certificate)),
    )
    with service(tmp_path / "data", weights, *words, accept_any="true") as running:
        running.client = httpx.Client(
            base_url=running.url, headers={"Authorization": f"Bearer {running.token}"},
            verify=ssl.create_default_context(cafile=str(certificate)),
        )  # fmt: skip
        address = ("-aec", "FXPIPE", "localhost", str(running.dicom_port), str(path))
        dcmtk("storescu", *address, expected=1)  # without TLS
        own = ("+tls", str(key), str(certificate), "+cf", str(certificate))
        anonymous = ("+tla", "-ic", "+cf", str(certificate))
        dcmtk("storescu", *anonymous, *address, expected=1)  # without a certificate
        assert running.pictures() == []
        with socket.create_connection(("127.0.0.1", running.dicom_port)):  # sends nothing
            dcmtk("storescu", *own, *address)
        assert len(running.judged(1)) == 1
