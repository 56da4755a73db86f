"""The FHIR bundle: valid and complete resources, and patient identifiers only on request."""

import json
from pathlib import Path

import pytest
from bundles import write_png
from click.testing import CliRunner
from factories import IDENTIFIERS, PATIENT_ID, dicom, dicom_file, ramp
from fhir.resources.R4B import get_fhir_model_class
from fhir.resources.R4B.bundle import Bundle
from tiny_networks import write_bundles

from pipeline.cli import main
from pipeline.domain import ImageRef
from pipeline.outcome import Outcome, Status
from pipeline.report.fhir import FhirWriter

WORDS = {"positive": "Present", "uncertain": "Undetermined", "negative": "Absent"}


def run(folder: Path, *extra: str) -> tuple[dict, list[dict], str]:
    """Run on five files; returns the bundle, the lines of results.jsonl, and the bundle's text."""
    inputs = folder / "in"
    inputs.mkdir()
    write_png(inputs / "a.png", {"hand": 0.9, "elbow": 0.8}, {"hand": 0.8, "elbow": 0.3})
    write_png(inputs / "b.png", {}, {})
    (inputs / "c.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    write_png(inputs / "d.png", {"hand": 0.9}, {"hand": 0.48})
    (inputs / "e.dcm").write_bytes(dicom_file(dicom(ramp(64, 48, 0, 4095))))
    weights = write_bundles(folder / "weights")
    command = ["run", "--input", inputs, "--output", folder / "out", "--weights", weights]
    options = ["--fhir", "--device", "cpu", "--quiet", *extra]
    result = CliRunner().invoke(main, [str(part) for part in command + options])
    assert result.exit_code == 1, result.output
    text = (folder / "out/results.fhir.json").read_text()
    lines = (folder / "out/results.jsonl").read_text().splitlines()
    return json.loads(text), [json.loads(line) for line in lines], text


def resources(bundle: dict, kind: str) -> list[dict]:
    every = [entry["resource"] for entry in bundle["entry"]]
    return [resource for resource in every if resource["resourceType"] == kind]


def test_every_input_has_a_report_and_every_finding_an_observation(tmp_path):
    bundle, lines, text = run(tmp_path)
    Bundle.model_validate(bundle)
    for entry in bundle["entry"]:
        get_fhir_model_class(entry["resource"]["resourceType"]).model_validate(entry["resource"])
    by_url = {entry["fullUrl"]: entry["resource"] for entry in bundle["entry"]}
    assert len(by_url) == len(bundle["entry"])

    reports = resources(bundle, "DiagnosticReport")
    assert len(reports) == len(lines) == 5
    for report, line in zip(reports, lines, strict=True):
        assert report["conclusion"].startswith(f"{line['path']}: ")
        assert "Unverified" in report["conclusion"]
        results = [by_url[result["reference"]] for result in report.get("result", [])]
        assert report["status"] == ("preliminary" if line["findings"] else "cancelled")
        assert len(results) == len(line["findings"])
        for observation, finding in zip(results, line["findings"], strict=True):
            assert observation["code"]["text"] == "Fracture of bone"
            assert observation["valueCodeableConcept"]["text"] == WORDS[finding["verdict"]]
            assert finding["region"] in observation["bodySite"]["text"].lower()
            shares = [part["valueQuantity"]["value"] for part in observation["component"]]
            assert shares == [finding[key] for key in ("probability", "threshold", "doubt_below")]
            assert by_url[observation["device"]["reference"]]["resourceType"] == "Device"
            assert "subject" not in observation
    assert any(len(report.get("result", [])) == 2 for report in reports)
    assert not any(word in text for word in IDENTIFIERS)


def test_identifiers_are_written_on_request(tmp_path):
    bundle, lines, _ = run(tmp_path, "--identifiers", "keep")
    Bundle.model_validate(bundle)
    (named,) = (r for r in resources(bundle, "DiagnosticReport") if "subject" in r)
    assert named["subject"]["identifier"]["value"] == PATIENT_ID
    (uid,) = (line["study_instance_uid"] for line in lines if line["study_instance_uid"])
    assert named["imagingStudy"][0]["identifier"]["value"] == f"urn:oid:{uid}"


def test_interrupted_run_leaves_a_valid_bundle(tmp_path):
    file = tmp_path / "results.fhir.json"
    outcome = Outcome(ImageRef(tmp_path / "a.png"), Status.FAILED, error="broken")

    def write_two_and_fail() -> None:
        with FhirWriter(file, tmp_path) as writer:
            writer.write(outcome)
            writer.write(outcome)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_two_and_fail()
    bundle = Bundle.model_validate(json.loads(file.read_text()))
    assert [entry.resource.__resource_type__ for entry in bundle.entry] == [
        "Device",
        "DiagnosticReport",
        "DiagnosticReport",
    ]
