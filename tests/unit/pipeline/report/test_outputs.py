"""The list of outputs, as used by the command, by resume and by the walk of the input."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pipeline.cli._output_options import asked_outputs, output_options
from pipeline.config import RunConfig
from pipeline.io.own_output import TABLE, without_results
from pipeline.report.outputs import OUTPUTS, Resume
from pipeline.report.writer import StreamWriter, Writer


class Entry:
    """A folder entry, reduced to the attributes that the walk uses."""

    def __init__(self, name: str) -> None:
        self.name = name


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: output.name)
def test_writer_supports_the_resume_mode_of_its_output(output):
    writer = output.load()
    assert issubclass(writer, StreamWriter) == (output.resume is Resume.APPEND)
    assert (writer.recount is not Writer.recount) == (output.resume is Resume.RECOUNT)


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: output.name)
def test_every_output_file_is_skipped_in_a_later_input(tmp_path, output):
    if not output.is_file:
        return
    (tmp_path / TABLE).write_text("path,frame,sha256,study\n")
    entries = [Entry(name) for name in dict.fromkeys((TABLE, output.name, "a.png"))]
    remaining = without_results(tmp_path, entries)  # type: ignore[arg-type]
    assert [entry.name for entry in remaining] == ["a.png"]


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({}, []),
        ({"parquet": True}, ["results.parquet"]),
        ({"fhir": True, "heatmaps": "all"}, ["heatmaps", "results.fhir.json"]),
        ({"report": True}, ["heatmaps", "report.html"]),
        ({"report": True, "heatmaps": "none"}, ["report.html"]),
        ({"dicom_out": "objects"}, ["heatmaps", "DICOM objects"]),
        ({"studies": "none"}, []),
    ],
)
def test_outputs_of_a_run(settings, more):
    names = {output.name for output in asked_outputs(RunConfig(**settings))}
    assert names == {"results.csv", "results.jsonl", "studies.csv", *more}


def test_every_setting_of_an_output_is_an_option():
    @click.command()
    @output_options
    def command(**options: object) -> None:
        received.append(options)

    received: list[dict[str, object]] = []
    arguments = "--heatmaps all --report --fhir --parquet --studies folder --dicom-out ~/objects"
    for line in ([], arguments.split()):
        assert CliRunner().invoke(command, line, catch_exceptions=False).exit_code == 0
    settings = [output.setting for output in OUTPUTS if output.setting]
    assert received[0] == dict.fromkeys(settings)
    assert received[1] == {
        "heatmaps": "all", "report": True, "fhir": True, "parquet": True, "studies": "folder",
        "dicom_out": Path("~/objects").expanduser(),
    }  # fmt: skip
    refused = CliRunner().invoke(command, ["--heatmaps", "some"])
    assert refused.exit_code == 2
