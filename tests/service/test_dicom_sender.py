"""Results sent to archives: Orthanc and dcmtk."""

from __future__ import annotations

import time

import pytest
from dicom_service import (
    ask,
    found,
    fractured,
    free_port,
    orthanc,
    service,
    storescp,
    storescu,
    until,
)
from factories import PATIENT_ID, dicom_file
from pydicom import dcmread
from tiny_networks import write_bundles

pytestmark = pytest.mark.skipif(
    not (found("storescu") and found("Orthanc")), reason="Orthanc or dcmtk is not installed"
)
KINDS = ["marks", "overlay", "report"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_bundles(tmp_path_factory.mktemp("weights"))


def _files(folder, count, study="2.25.1002"):
    paths = []
    for number in range(1, count + 1):
        path = folder / f"{number}.dcm"
        path.write_bytes(dicom_file(fractured(number, StudyInstanceUID=study)))
        paths.append(path)
    return paths


def test_results_belong_to_the_studies_of_the_archive(weights, tmp_path):
    files = _files(tmp_path, 2)
    with orthanc(tmp_path / "orthanc") as (http, dimse):
        storescu(dimse, *files)
        with service(tmp_path / "data", weights) as running:
            running.add_peer(title="MODALITY", receive=True)
            peer = running.add_peer(title="ARCHIVE", port=dimse, send=True, receive=False)
            assert running.post(f"/peers/{peer}/echo")["ok"]
            storescu(running.dicom_port, *files)
            objects = running.sent(6)
            assert sorted(one["kind"] for one in objects) == sorted(KINDS * 2)
            (study,) = ask(http, "studies?expand")
            assert study["PatientMainDicomTags"]["PatientID"] == PATIENT_ID
            counts = ask(http, "statistics")
            assert (counts["CountStudies"], counts["CountInstances"]) == (1, 2 + 6)
            # Nothing is sent again when the study becomes stable again.
            storescu(running.dicom_port, files[0])
            # A further picture of the study adds objects, numbered after the others.
            third = tmp_path / "3.dcm"
            third.write_bytes(dicom_file(fractured(3, InstanceNumber=3)))
            storescu(running.dicom_port, third)
            running.sent(9)
            assert ask(http, "statistics")["CountInstances"] == 2 + 9
            numbers = {
                one["MainDicomTags"]["InstanceNumber"]
                for one in ask(http, "instances?expand")
                if ask(http, f"instances/{one['ID']}/simplified-tags")["Modality"] == "SR"
            }
            assert numbers == {"1", "2", "3"}
            # The contents of sent objects are deleted from the disk.
            kept = {p.name for p in (running.data / "blobs").rglob("*") if p.is_file()}
            assert kept == {one["sha256"] for one in running.pictures()}


def test_objects_are_sent_when_the_receiver_is_available_again(weights, tmp_path):
    (file,) = _files(tmp_path, 1)
    port = free_port()
    with service(tmp_path / "data", weights, accept_any="true") as running:
        running.add_peer(title="ARCHIVE", port=port, send=True)
        storescu(running.dicom_port, file)
        waiting = until(
            lambda: [one for one in running.outbox() if one["error"] and one["tries"] > 1]
        )
        assert {one["error"] for one in waiting} == {"the receiver did not answer"}
        folder = tmp_path / "received"
        with storescp(folder, port):
            running.sent(3)
        received = [dcmread(path) for path in folder.iterdir()]
        assert sorted(ds.Modality for ds in received) == ["OT", "PR", "SR"]
        assert {ds.PatientID for ds in received} == {PATIENT_ID}


def test_unsent_object_needs_attention_after_days_and_can_be_retried(weights, tmp_path):
    (file,) = _files(tmp_path, 1)
    port = free_port()
    with service(tmp_path / "data", weights, accept_any="true", retry_h=0) as running:
        running.add_peer(title="ARCHIVE", port=port, send=True)
        storescu(running.dicom_port, file)
        objects = until(
            lambda: [one for one in running.outbox() if one["state"] == "attention"] or None
        )
        time.sleep(1)
        with storescp(tmp_path / "received", port):
            for one in objects:
                running.post(f"/outbox/{one['id']}/retry")
            running.sent(3)
        running.client.post(f"/api/v1/outbox/{objects[0]['id']}/retry")
        response = running.client.post(f"/api/v1/outbox/{objects[0]['id']}/retry")
        assert response.status_code == 409


def test_killed_sender_loses_and_duplicates_no_object(weights, tmp_path):
    files = _files(tmp_path, 6)
    data = tmp_path / "data"
    with orthanc(tmp_path / "orthanc") as (http, dimse):
        with service(data, weights, accept_any="true") as running:
            running.add_peer(title="ARCHIVE", port=dimse, send=True)
            storescu(running.dicom_port, *files)
            until(lambda: ask(http, "statistics")["CountInstances"] >= 2)
            running.kill()
        before = ask(http, "statistics")["CountInstances"]
        for pause_s in (0.0, 0.1, 0.2):
            with service(data, weights, accept_any="true") as running:
                time.sleep(pause_s)
                running.kill()
        with service(data, weights, accept_any="true") as running:
            objects = running.sent(18)
        assert len({one["uid"] for one in objects}) == len(objects) == 18
        stored = ask(http, "instances?expand")
        assert sorted(one["MainDicomTags"]["SOPInstanceUID"] for one in stored) == sorted(
            one["uid"] for one in objects
        )
        assert before >= 2


def test_storage_commitment(weights, tmp_path):
    (file,) = _files(tmp_path, 1)
    port = free_port()
    modalities = {"fxpipe": {"AET": "FXPIPE", "Host": "127.0.0.1", "Port": port}}
    with (
        orthanc(tmp_path / "orthanc", modalities) as (_, dimse),
        service(tmp_path / "data", weights, dicom_port=port) as running,
    ):
        running.add_peer(title="MODALITY", receive=True)
        peer = running.add_peer(
            title="ARCHIVE", port=dimse, send=True, receive=False, commitment=True
        )
        storescu(running.dicom_port, file)
        running.sent(3)

        def only_pictures() -> bool:
            kept = {p.name for p in (running.data / "blobs").rglob("*") if p.is_file()}
            return kept == {one["sha256"] for one in running.pictures()}

        until(only_pictures)
        response = running.client.delete(f"/api/v1/peers/{peer}")
        assert response.status_code == 204
        assert running.outbox() == []


def test_archive_without_storage_commitment(weights, tmp_path):
    (file,) = _files(tmp_path, 1)
    port = free_port()
    with (
        storescp(tmp_path / "received", port),
        service(tmp_path / "data", weights, accept_any="true", retry_h=0) as running,
    ):
        running.add_peer(title="ARCHIVE", port=port, send=True, commitment=True)
        storescu(running.dicom_port, file)
        objects = until(
            lambda: [one for one in running.outbox() if one["state"] == "attention"] or None
        )
        assert {one["error"] for one in objects} == {
            "the receiver does not support storage commitment"
        }
        assert len(list((tmp_path / "received").iterdir())) == 3


def test_objects_of_a_deleted_picture_are_deleted(weights, tmp_path):
    (file,) = _files(tmp_path, 1)
    with service(tmp_path / "data", weights, accept_any="true") as running:
        running.add_peer(title="ARCHIVE", port=free_port(), send=True)
        storescu(running.dicom_port, file)
        until(lambda: len(running.outbox()) == 3)
        (picture,) = running.pictures()
        assert running.client.delete(f"/api/v1/pictures/{picture['id']}").status_code == 204
        assert running.outbox() == []
        assert not [p for p in (running.data / "blobs").rglob("*") if p.is_file()]
