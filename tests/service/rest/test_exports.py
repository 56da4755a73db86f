"""``/exports``: the rows of a run, labels, objects."""

from __future__ import annotations

import csv
import io
import json
import zipfile

import numpy as np
import pytest
from bundles import paint
from click.testing import CliRunner
from factories import PATIENT_ID, dicom, dicom_file
from pydicom import dcmread
from tiny_networks import write_bundles
from tiny_service import (
    Client,
    hand,
    negative,
    positive,
    tiny_service,
    uncertain,
    unsupported,
)

from pipeline.cli import main


def film(fracture, uid, code, frames=0):
    """A DICOM file of a hand."""
    pixels = paint({"hand": 0.9}, {"hand": fracture}, strange=code / 255).astype(np.uint16) * 257
    stored = np.stack([pixels] * frames) if frames else pixels
    return dicom_file(dicom(stored, SOPInstanceUID=uid, AccessionNumber="ACC-9"))


FILES = {
    "a.png": hand(0.9),
    "b.png": hand(0.48),
    "c.dcm": film(0.9, "2.25.31", 3),
    "d.dcm": film(0.1, "2.25.32", 4, frames=2),
    "e.png": unsupported(),
    "f.png": positive()[:70],
    "g.txt": b"not a picture",
    "h.png": hand(0.1),
    "h2.png": positive()[:71],
}
FILES["i.png"] = FILES["h2.png"]  # the same content under another name


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The weights, and the outputs of ``fxpipe run`` on the files."""
    folder = tmp_path_factory.mktemp("run")
    weights = write_bundles(folder / "weights")
    (folder / "input").mkdir()
    for name, content in FILES.items():
        (folder / "input" / name).write_bytes(content)
    for identifiers in ("omit", "keep"):
        words = (
            "run", "--input", folder / "input", "--output", folder / identifiers, "--weights",
            weights, "--identifiers", identifiers, "--fhir", "--quiet", "--dicom-out",
            folder / f"{identifiers}-dicom", "--heatmaps", "none",
        )  # fmt: skip
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code == 1, result.output  # some files fail
    return folder


@pytest.fixture(scope="module")
def app(run, tmp_path_factory):
    """A service that has judged the same files."""
    with tiny_service(tmp_path_factory.mktemp("service"), run / "weights") as opened:
        client = Client(opened, "reader")
        for name, content in FILES.items():
            client.judged(content, name)
        yield opened


def rows_of(text):
    return [{**row, "elapsed_ms": ""} for row in csv.DictReader(io.StringIO(text))]


def lines_of(text):
    return [{**json.loads(line), "elapsed_ms": 0.0} for line in text.splitlines()]


@pytest.mark.parametrize("identifiers", ["omit", "keep"])
def test_tables_equal_those_of_a_run_except_times(reader, run, identifiers):
    table = reader.get(f"/exports/csv?identifiers={identifiers}").text
    expected = (run / identifiers / "results.csv").read_text()
    assert table.splitlines()[0] == expected.splitlines()[0]
    assert rows_of(table) == rows_of(expected)
    lines = reader.get(f"/exports/jsonl?identifiers={identifiers}").text
    assert lines_of(lines) == lines_of((run / identifiers / "results.jsonl").read_text())


def test_csv_text_equals_that_of_a_run(reader, run):
    """Byte for byte, except one number per row."""
    times = [row["elapsed_ms"] for row in lines_of(reader.get("/exports/jsonl").text)]
    assert set(times) == {0.0}
    for line, expected in zip(
        reader.get("/exports/jsonl").text.splitlines(),
        (run / "omit" / "results.jsonl").read_text().splitlines(),
        strict=True,
    ):
        before, _, after = line.partition('"elapsed_ms": ')
        other, _, rest = expected.partition('"elapsed_ms": ')
        assert before == other
        assert after.partition(",")[2] == rest.partition(",")[2]


@pytest.mark.parametrize("identifiers", ["omit", "keep"])
def test_bundle_equals_that_of_a_run(reader, run, identifiers):
    bundle = reader.get(f"/exports/fhir?identifiers={identifiers}").json()
    expected = json.loads((run / identifiers / "results.fhir.json").read_text())
    for one in (bundle, expected):
        one.pop("timestamp")
        for entry in one["entry"]:
            entry["resource"].pop("issued", None)
    assert bundle == expected


def test_identifiers_are_exported_only_on_request(reader, client):
    assert PATIENT_ID in reader.get("/exports/csv?identifiers=keep").text
    for kind in ("csv", "jsonl", "fhir", "labels", "dicom"):
        content = reader.get(f"/exports/{kind}").content
        assert PATIENT_ID.encode() not in content
        assert b"ACC-9" not in content
    auditor = client("auditor")
    assert auditor.get("/exports/csv").status_code == 200
    assert auditor.get("/exports/csv?identifiers=keep").status_code == 403
    assert auditor.get("/exports/labels").status_code == 403


def test_export_of_one_state_and_time(reader):
    rows = rows_of(reader.get("/exports/csv?answer=uncertain").text)
    assert [row["path"] for row in rows] == ["b.png"]
    rows = rows_of(reader.get("/exports/csv?state=unsupported").text)
    assert {row["status"] for row in rows} == {"unsupported"}
    assert rows_of(reader.get("/exports/csv?since=9000000000000").text) == []
    assert len(rows_of(reader.get("/exports/csv?until=9000000000000").text)) == len(FILES) + 1


def test_export_is_in_the_audit_log(reader, client):
    reader.get("/exports/csv?identifiers=keep")
    entries = client("auditor").get("/audit").json()["entries"]
    entry = next(one for one in entries if one["action"] == "export")
    assert (entry["actor"], entry["subject"]) == ("reader", "csv")
    assert entry["detail"] == {"identifiers": "keep"}


def test_dicom_objects_refer_to_the_pictures(reader, run):
    content = reader.get("/exports/dicom?identifiers=keep").content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        objects = {name: dcmread(io.BytesIO(archive.read(name))) for name in archive.namelist()}
    kinds = sorted(name.rsplit("-", 1)[1] for name in objects)
    assert kinds == ["marks.dcm", "overlay.dcm", "report.dcm", "report.dcm", "report.dcm"]
    assert {ds.PatientID for ds in objects.values()} == {PATIENT_ID}
    made = {ds.SOPInstanceUID for name, ds in objects.items() if name.endswith("report.dcm")}
    by_run = [dcmread(path) for path in (run / "keep-dicom").glob("*report.dcm")]
    assert made == {ds.SOPInstanceUID for ds in by_run}


def test_labels_have_the_pictures_and_the_verdicts(reader, admin):
    listed = {one["name"]: one for one in reader.get("/pictures?limit=200").json()["pictures"]}
    verdicts = {"a.png": "fracture", "c.dcm": "none", "d.dcm": "none", "e.png": "unsure"}
    for name, verdict in verdicts.items():
        result = reader.get(f"/pictures/{listed[name]['id']}").json()["results"][0]["id"]
        region = {"region": "elbow"} if name == "c.dcm" else {}
        answer = reader.post(f"/results/{result}/reviews", json={"verdict": verdict, **region})
        assert answer.status_code == 201
    for identifiers, suffix in (("omit", ".png"), ("keep", ".dcm")):
        content = reader.get(f"/exports/labels?identifiers={identifiers}").content
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            table = list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode())))
            left_out = list(csv.DictReader(io.StringIO(archive.read("left-out.csv").decode())))
            files = [archive.read(row["path"]) for row in table]
        assert [(row["label"], row["regions"]) for row in table] == [
            ("1", "hand"), ("0", "elbow"),
        ]  # fmt: skip
        assert files[0] == FILES["a.png"]
        assert table[1]["path"].endswith(suffix)
        assert (files[1] == FILES["c.dcm"]) == (identifiers == "keep")
        assert {row["picture"]: row["reason"] for row in left_out} == {
            str(listed["d.dcm"]["id"]): "a file with several pictures",
            str(listed["e.png"]["id"]): "verdict: unsure",
        }


def test_blind_reader_exports_only_reviewed_pictures(service, reader, admin):
    number = next(one["id"] for one in admin.get("/users").json() if one["name"] == "reader")
    admin.patch(f"/users/{number}", json={"blind": True})
    fresh = negative(), uncertain()
    for content in fresh:
        admin.judged(content)
    mine = {one["picture"] for one in reader.get("/reviews?mine=true").json()["reviews"]}
    rows = rows_of(reader.get("/exports/csv").text)
    assert len({row["sha256"] for row in rows}) == len(mine)
    admin.patch(f"/users/{number}", json={"blind": False})
    assert len(rows_of(reader.get("/exports/csv").text)) > len(rows)
