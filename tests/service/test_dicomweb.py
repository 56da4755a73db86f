"""DICOMweb: STOW-RS, QIDO-RS and WADO-RS, with dicomweb-client."""

from __future__ import annotations

from io import BytesIO

import httpx
import numpy as np
import pytest
import requests
from dicom_service import fractured, service
from dicomweb_client.api import DICOMwebClient
from factories import IDENTIFIERS, PATIENT_ID, compressed, dicom_file
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, JPEGLosslessSV1
from tiny_networks import write_bundles

STUDY, SERIES = "2.25.1002", "2.25.1003"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_bundles(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def running(weights, tmp_path_factory):
    with service(tmp_path_factory.mktemp("data"), weights) as started:
        yield started


def token(running, role):
    return running.post("/tokens", {"name": role, "role": role}, 201)["secret"]


def client(running, role):
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {token(running, role)}"
    return DICOMwebClient(f"{running.url}dicom-web", session=session)


@pytest.fixture(scope="module")
def sent(running, tmp_path_factory):
    """Three pictures in two studies; the last one is compressed."""
    folder = tmp_path_factory.mktemp("sent")
    other = fractured(
        3, StudyInstanceUID="2.25.2002", SeriesInstanceUID="2.25.2003", PatientID="OTHER",
        PatientName="Müller^Jérôme", SpecificCharacterSet="ISO_IR 100", StudyDate="20230101",
        Modality="CR", AccessionNumber="B2",
    )  # fmt: skip
    contents = [dicom_file(fractured(1)), dicom_file(fractured(2))]
    contents.append(compressed(other, JPEGLosslessSV1, folder))
    files = [dcmread(BytesIO(content)) for content in contents]
    answer = client(running, "sender").store_instances(files)
    assert len(answer.ReferencedSOPSequence) == 3
    assert "FailedSOPSequence" not in answer
    running.judged(3)
    return files


@pytest.fixture(scope="module")
def web(running, sent):
    return client(running, "reader")


def text(found, keyword):
    return [getattr(Dataset.from_json(one), keyword) for one in found]


def test_stored_pictures_are_judged(running, sent):
    pictures = running.pictures()
    assert {one["name"] for one in pictures} == {f"2.25.500{n}.dcm" for n in (1, 2, 3)}
    assert {one["answer"] for one in pictures} == {"positive"}
    assert {one["source"] for one in pictures} == {"http"}
    assert len({one["study"] for one in pictures}) == 2


@pytest.mark.parametrize(
    ("filters", "studies"),
    [
        ({}, {STUDY, "2.25.2002"}),
        ({"PatientID": PATIENT_ID}, {STUDY}),
        ({"PatientName": "müll*"}, {"2.25.2002"}),
        ({"PatientName": "M?ller^*"}, {"2.25.2002"}),
        ({"00100020": "OTHER"}, {"2.25.2002"}),
        ({"StudyDate": "20240101-20241231"}, {STUDY}),
        ({"StudyDate": "-20231231"}, {"2.25.2002"}),
        ({"StudyDate": "20240102"}, {STUDY}),
        ({"AccessionNumber": "B2"}, {"2.25.2002"}),
        ({"ModalitiesInStudy": "CR"}, {"2.25.2002"}),
        ({"StudyInstanceUID": f"{STUDY},2.25.2002"}, {STUDY, "2.25.2002"}),
        ({"PatientID": "100%"}, set()),
    ],
)
def test_studies_are_found(web, filters, studies):
    found = web.search_for_studies(search_filters=filters)
    assert set(text(found, "StudyInstanceUID")) == studies


def test_query_attributes(web):
    (found,) = web.search_for_studies(search_filters={"PatientID": "OTHER"})
    study = Dataset.from_json(found)
    assert str(study.PatientName) == "Müller^Jérôme"
    assert study.ModalitiesInStudy == "CR"
    assert (study.NumberOfStudyRelatedSeries, study.NumberOfStudyRelatedInstances) == (1, 1)
    (series,) = web.search_for_series(STUDY)
    assert Dataset.from_json(series).NumberOfSeriesRelatedInstances == 2
    instances = web.search_for_instances(STUDY, SERIES)
    assert sorted(text(instances, "SOPInstanceUID")) == ["2.25.5001", "2.25.5002"]
    assert text(instances, "Rows") == [64, 64]
    assert len(web.search_for_instances()) == 3
    assert len(web.search_for_instances(limit=1, offset=2)) == 1
    assert web.search_for_instances(limit=1, offset=3) == []


def test_retrieved_files_equal_stored_ones(web, sent):
    found = web.retrieve_instance(STUDY, SERIES, "2.25.5001")
    assert dicom_file(found) == dicom_file(sent[0])
    assert len(web.retrieve_study(STUDY)) == 2
    assert len(web.retrieve_series(STUDY, SERIES)) == 2
    (other,) = web.retrieve_study("2.25.2002")
    assert other.file_meta.TransferSyntaxUID == JPEGLosslessSV1


def test_metadata(web):
    found = web.retrieve_instance_metadata(STUDY, SERIES, "2.25.5001")
    header = Dataset.from_json(found)
    assert header.PatientID == PATIENT_ID
    assert "PixelData" not in header
    assert len(web.retrieve_series_metadata(STUDY, SERIES)) == 2
    assert len(web.retrieve_study_metadata(STUDY)) == 2


def test_frames(web, sent):
    (frame,) = web.retrieve_instance_frames(STUDY, SERIES, "2.25.5001", [1])
    assert frame == sent[0].PixelData
    where = "2.25.2002", "2.25.2003", "2.25.5003"
    (plain,) = web.retrieve_instance_frames(*where, [1])
    assert np.array_equal(np.frombuffer(plain, "<u2").reshape(64, 64), sent[2].pixel_array)
    syntax = str(JPEGLosslessSV1)
    (stream,) = web.retrieve_instance_frames(*where, [1], media_types=(("image/jpeg", syntax),))
    assert stream[:2] == b"\xff\xd8"
    with pytest.raises(requests.HTTPError, match="404"):
        web.retrieve_instance_frames(*where, [2])


def test_rendered(web, running):
    content = web.retrieve_instance_rendered(STUDY, SERIES, "2.25.5001")
    image = Image.open(BytesIO(content))
    assert (image.format, image.size) == ("JPEG", (64, 64))
    content = web.retrieve_instance_frames_rendered(
        STUDY, SERIES, "2.25.5001", [1], media_types=("image/png",),
        params={"viewport": "32,32"},
    )  # fmt: skip
    image = Image.open(BytesIO(content))
    assert (image.format, image.size) == ("PNG", (32, 32))


@pytest.mark.parametrize(
    "path",
    [
        "studies", "series", "instances", f"studies/{STUDY}", f"studies/{STUDY}/metadata",
        f"studies/{STUDY}/series/{SERIES}/instances/2.25.5001/rendered",
        f"studies/{STUDY}/series/{SERIES}/instances/2.25.5001/frames/1",
    ],
)  # fmt: skip
def test_roles_that_may_read(running, sent, path):
    url = f"{running.url}dicom-web/{path}"
    assert httpx.get(url).status_code == 401
    for role, status in (("sender", 403), ("auditor", 403), ("reader", 200)):
        headers = {"Authorization": f"Bearer {token(running, role)}"}
        response = httpx.get(url, headers=headers)
        assert response.status_code == status
        if status == 403:
            assert not [word for word in IDENTIFIERS if word in response.text]


def _post(running, content, kind='multipart/related; type="application/dicom"; boundary=X'):
    return running.client.post(
        "/dicom-web/studies", content=content, headers={"Content-Type": kind}
    )


def _part(content, head=b"Content-Type: application/dicom\r\n"):
    return b"--X\r\n" + head + b"\r\n" + content + b"\r\n"


def test_invalid_part_does_not_affect_others(running, sent):
    ct = dicom_file(fractured(8, SOPClassUID=CTImageStorage, StudyInstanceUID="2.25.3002"))
    good = dicom_file(fractured(9, StudyInstanceUID="2.25.3002"))
    body = b"a preamble\r\n" + _part(ct) + _part(b"no file") + _part(good) + _part(b"") + b"--X--"
    response = _post(running, body)
    assert response.status_code == 202
    answer = Dataset.from_json(response.text)
    assert [one.ReferencedSOPInstanceUID for one in answer.ReferencedSOPSequence] == ["2.25.5009"]
    assert [one.FailureReason for one in answer.FailedSOPSequence] == [0x0122, 0xC000, 0xC000]
    url = answer.ReferencedSOPSequence[0].RetrieveURL
    assert running.client.get(url).status_code == 200
    response = running.client.post(
        "/dicom-web/studies/2.25.77", content=_part(good) + b"--X--",
        headers={"Content-Type": "multipart/related; boundary=X"},
    )  # fmt: skip
    assert response.status_code == 409


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"--X--", 'multipart/related; type="application/dicom"; boundary=X', 400),
        (b"", 'multipart/related; type="application/dicom"; boundary=X', 400),
        (_part(b"cut")[:-4], 'multipart/related; type="application/dicom"; boundary=X', 400),
        (b"--Xy\r\n\r\n", 'multipart/related; type="application/dicom"; boundary=X', 400),
        (_part(b"x" * 9000, b"A" * 9000), "multipart/related; boundary=X", 400),
        (b"", "multipart/related", 400),
        (b"", 'multipart/related; type="application/dicom+json"; boundary=X', 415),
        (b"", "application/dicom", 415),
    ],
)
def test_malformed_messages(running, content, kind, status):
    assert _post(running, content, kind).status_code == status


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("studies?nonsense=1", 400), ("studies?PatientID=a%00b", 400), ("studies/x", 422),
        ("studies/1.2.3", 404), (f"studies/{STUDY}/series/{SERIES}/instances/1/frames/0", 422),
        ("studies?limit=0", 422), ("studies?InstitutionName=x", 200),
    ],
)  # fmt: skip
def test_other_queries(running, sent, path, status):
    response = running.client.get(f"/dicom-web/{path}")
    assert response.status_code == status
    assert ("warning" in response.headers) == ("InstitutionName" in path)


def test_unacceptable_media_types(running, sent):
    url = "/dicom-web/studies/2.25.2002/series/2.25.2003/instances/2.25.5003"
    for path, accept in (
        ("", 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1'),
        ("", "text/html"),
        ("/frames/1", "text/html"),
        ("/rendered", "text/html"),
    ):
        assert running.client.get(url + path, headers={"Accept": accept}).status_code == 406


def test_http_uploads_are_found_until_deleted(running, sent):
    """Files from other sources are found too."""
    content = dicom_file(fractured(11, StudyInstanceUID="2.25.4002"))
    response = running.client.post("/api/v1/pictures", content=content)
    running.judged(1)
    found = running.client.get("/dicom-web/studies?StudyInstanceUID=2.25.4002").json()
    assert len(found) == 1
    path = f"/api/v1/pictures/{response.json()['id']}"
    assert running.client.delete(path).status_code == 204
    assert running.client.get("/dicom-web/studies?StudyInstanceUID=2.25.4002").json() == []
    assert running.client.get("/dicom-web/studies/2.25.4002").status_code == 404
