"""An archive (Orthanc) files the objects into the study of the original."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_results import DIGESTS, judged
from factories import PATIENT_ID, bone, dicom, dicom_file
from tools import need

from pipeline.config import RunConfig
from pipeline.report.dicom.objects import DicomWriter

pytestmark = pytest.mark.needs_tool("Orthanc", "storescu")
_TIMEOUT_S = 20.0


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


@contextmanager
def orthanc(folder: Path) -> Iterator[tuple[int, int]]:
    """Start an empty private archive; yields its HTTP and DICOM ports."""
    http, dimse = _free_ports()
    config = {
        "Name": "fxpipe-test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [],
        "HttpPort": http,
        "DicomPort": dimse,
        "DicomAet": "ARCHIVE",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowEcho": True,
        "DicomCheckCalledAet": False,
        "ConcurrentJobs": 1,
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(
            [need("Orthanc"), str(folder / "orthanc.json")], stdout=log, stderr=subprocess.STDOUT
        )
        try:
            _wait(process, http, folder / "orthanc.log")
            yield http, dimse
        finally:
            process.terminate()
            try:
                process.wait(timeout=_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], http: int, log: Path) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            get_json(http, "system")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"Orthanc did not start:\n{log.read_text(errors='replace')[-2000:]}")


def get_json(http: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{http}/{path}", timeout=5) as answer:
        return json.loads(answer.read())


def store(dimse: int, files: list[Path]) -> None:
    done = subprocess.run(
        [need("storescu"), "-R", "127.0.0.1", str(dimse), *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def study(tmp_path) -> list[Path]:
    """Two originals of one study, and their objects, written twice."""
    pixels = np.rint(bone(96, 80) * 4095).astype(np.uint16)
    files = []
    for number in (1, 2):
        path = tmp_path / f"{number}.dcm"
        ds = dicom(
            pixels // number,
            bits=12,
            SOPInstanceUID=f"2.25.{number}",
            AccessionNumber="A1",
            StudyDate="20200102",
            SpecificCharacterSet="ISO_IR 100",
            PatientName="Müller^Jérôme",
        )
        path.write_bytes(dicom_file(ds))
        files.append(path)
    for again in ("once", "again"):
        writer = DicomWriter(tmp_path / again, RunConfig(identifiers="keep"), DIGESTS)
        for path in list(files[:2]):
            writer.write(judged(path)[0])
        files += sorted((tmp_path / again).iterdir())
    assert len(files) == 2 + 2 * 2 * 3
    return files


def test_originals_and_objects_are_in_one_study_of_one_patient(tmp_path, study):
    with orthanc(tmp_path) as (http, dimse):
        store(dimse, study)
        counts = get_json(http, "statistics")
        assert {kind: counts[f"Count{kind}"] for kind in ("Patients", "Studies", "Series")} == {
            "Patients": 1,
            "Studies": 1,
            "Series": 4,
        }
        # Two originals and two objects of each kind: those of the second run are identical.
        assert counts["CountInstances"] == 8
        (patient,) = get_json(http, "patients?expand")
        assert patient["MainDicomTags"]["PatientID"] == PATIENT_ID
        assert patient["MainDicomTags"]["PatientName"] == "Müller^Jérôme"
        series = get_json(http, "series?expand")
        kinds = sorted(
            (
                s["MainDicomTags"]["Modality"],
                s["MainDicomTags"].get("SeriesNumber"),
                len(s["Instances"]),
            )
            for s in series
        )
    assert kinds == [("DX", None, 2), ("OT", "9002", 2), ("PR", "9003", 2), ("SR", "9001", 2)]
