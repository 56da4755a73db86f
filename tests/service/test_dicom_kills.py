"""A service that is killed while a modality sends pictures."""

from __future__ import annotations

import random
import threading
import time

import pytest
from dicom_service import dcmtk, found, fractured, free_port, service
from factories import dicom_file
from tiny_networks import write_bundles

pytestmark = pytest.mark.skipif(not found("storescu"), reason="dcmtk is not installed")
KILLS, PICTURES = 3, 30


def test_acknowledged_pictures_have_exactly_one_result(tmp_path):
    weights = write_bundles(tmp_path / "weights")
    files = []
    for number in range(PICTURES):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(dicom_file(fractured(number, StudyInstanceUID=f"2.25.6{number}")))
        files.append(path)
    acknowledged: set[int] = set()
    port, ended = free_port(), threading.Event()

    def send():
        """Send each picture until it is acknowledged, like a modality."""
        while not ended.is_set() and len(acknowledged) < PICTURES:
            for number, path in enumerate(files):
                if number in acknowledged or ended.is_set():
                    continue
                words = ("-v", "-aec", "FXPIPE", "127.0.0.1", str(port), str(path))
                output = dcmtk("storescu", *words, expected=None)
                if "Received Store Response (Success)" in output:
                    acknowledged.add(number)
                else:
                    time.sleep(0.2)

    modality = threading.Thread(target=send)
    modality.start()
    try:
        for _ in range(KILLS):
            with service(tmp_path / "data", weights, dicom_port=port, accept_any="true") as running:
                time.sleep(random.uniform(0.1, 1.5))
                running.kill()
        with service(tmp_path / "data", weights, dicom_port=port, accept_any="true") as running:
            modality.join(120)
            assert len(acknowledged) == PICTURES
            pictures = running.judged(PICTURES)
            details = [running.get(f"/pictures/{one['id']}") for one in pictures]
    finally:
        ended.set()
        modality.join()
    assert sorted(one["name"] for one in pictures) == sorted(
        f"2.25.500{number}.dcm" for number in range(PICTURES)
    )
    assert {len(one["results"]) for one in details} == {1}
    assert {one["answer"] for one in pictures} == {"positive"}
