"""Every line of results.jsonl is valid according to the printed JSON Schema."""

import json

import pytest
from bundles import write_png
from click.testing import CliRunner
from factories import dicom, dicom_file, ramp
from jsonschema import (  # type: ignore[import-untyped]
    Draft202012Validator,
    ValidationError,
)
from tiny_networks import write_bundles

from pipeline.cli import main
from pipeline.report.columns import COLUMNS, RECORD_SCHEMA
from pipeline.report.results_schema import LineModel


@pytest.fixture(scope="module")
def schema() -> dict:
    result = CliRunner().invoke(main, ["schema"])
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    Draft202012Validator.check_schema(printed)
    return printed


@pytest.fixture(scope="module")
def lines(tmp_path_factory) -> list[dict]:
    """Lines for a positive, an unsupported and a broken picture, a text and a DICOM file."""
    folder = tmp_path_factory.mktemp("schema")
    inputs = folder / "in"
    inputs.mkdir()
    write_png(inputs / "a.png", {"hand": 0.9}, {"hand": 0.8})
    write_png(inputs / "b.png", {}, {})
    (inputs / "c.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (inputs / "d.txt").write_text("no picture")
    (inputs / "e.dcm").write_bytes(dicom_file(dicom(ramp(64, 48, 0, 4095))))
    weights = write_bundles(folder / "weights")
    command = ["run", "--input", inputs, "--output", folder / "out", "--weights", weights]
    extra = ["--identifiers", "keep", "--heatmaps", "all", "--device", "cpu", "--quiet"]
    result = CliRunner().invoke(main, [str(part) for part in command + extra])
    assert result.exit_code == 1, result.output
    return [json.loads(line) for line in (folder / "out/results.jsonl").read_text().splitlines()]


def test_schema_has_its_version_and_every_column(schema):
    assert schema["$id"].endswith(f":{RECORD_SCHEMA}")
    assert schema["properties"]["schema_version"]["const"] == RECORD_SCHEMA
    added = {"schema_version", "findings", "flag_reasons", "header"}
    assert set(schema["properties"]) == {*COLUMNS, *added} == set(schema["required"])


def test_every_line_is_valid(schema, lines):
    assert {line["status"] for line in lines} == {"ok", "unsupported", "failed"}
    for line in lines:
        Draft202012Validator(schema).validate(line)
        LineModel.model_validate_json(json.dumps(line))


@pytest.mark.parametrize(
    ("key", "value"),
    [("probability", 1.5), ("status", "fine"), ("sha256", "x"), ("surplus", 1), ("path", None)],
)
def test_invalid_lines_are_refused(schema, lines, key, value):
    with pytest.raises(ValidationError):
        Draft202012Validator(schema).validate(lines[0] | {key: value})
    missing = {name: entry for name, entry in lines[0].items() if name != "verdict"}
    with pytest.raises(ValidationError):
        Draft202012Validator(schema).validate(missing)
