"""Records: columns, values, escaping, CSV and JSON lines, and the summary."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import parquet
from rich.console import Console

from pipeline.domain import ImageRef
from pipeline.outcome import FractureCall, OperatingPoint, Outcome, RegionCall, Status
from pipeline.report.columns import COLUMNS, RECORD_SCHEMA, TYPES
from pipeline.report.csv_table import CsvWriter
from pipeline.report.json_lines import LINES, JsonLinesWriter
from pipeline.report.parquet import ParquetWriter
from pipeline.report.record import caption, image_text, path_text, plain, to_record
from pipeline.report.summary import INTENDED_USE, Summary
from pipeline.source import NamedBytes

ROOT = Path("in")
POINT = OperatingPoint("balanced", 0.5, 0.3)
CALL = RegionCall(
    {"elbow": 0.12345678, "hand": 0.9, "shoulder": 0.8},
    {"elbow": 0.5, "hand": 0.5, "shoulder": 0.5},
)


def ok(name: str = "a.png", target: str = "fracture", probability: float = 0.4) -> Outcome:
    return Outcome(
        image=ImageRef(ROOT / name, 2, "f" * 64),
        status=Status.OK,
        region=CALL,
        findings=(FractureCall("hand", target, probability, POINT),),
        elapsed_ms=1.23456,
        bundle_digests={"region": "a" * 64, "fracture-hand": "b" * 64},
        header={"ViewPosition": "PA"},
    )


def failed(name: str, error: str = "broken") -> Outcome:
    return Outcome(image=ImageRef(ROOT / name), status=Status.FAILED, error=error)


def test_columns_of_this_schema_version():
    assert RECORD_SCHEMA == 3, "the columns changed: update this list"
    expected = (
        *("path", "frame", "sha256", "study", "status", "regions"),
        *(
            "p_elbow",
            "p_hand",
            "p_shoulder",
            "density",
            "density_threshold",
            "header_effect",
            "unexamined",
            "region",
            "target",
            "verdict",
            "probability",
            "threshold",
        ),
        *("operating_point", "verdict_elbow", "probability_elbow", "verdict_hand"),
        *("probability_hand", "verdict_shoulder", "probability_shoulder", "flags", "heatmap"),
        *("error", "elapsed_ms", "bundle_digests", "patient_id", "patient_name"),
        *("accession_number", "study_instance_uid", "series_instance_uid", "sop_instance_uid"),
    )
    assert expected == COLUMNS
    assert tuple(to_record(ok(), ROOT)) == COLUMNS
    assert tuple(to_record(failed("x"), ROOT)) == COLUMNS


def test_values_of_a_finding():
    record = to_record(ok(), ROOT)
    assert record["regions"] == "hand;shoulder"
    assert record["unexamined"] == "shoulder"
    assert record["p_elbow"] == 0.123457
    assert record["header_effect"] == "nothing"
    assert (record["region"], record["verdict"], record["frame"]) == ("hand", "uncertain", 2)
    assert record["verdict_hand"] == "uncertain"
    assert record["verdict_elbow"] is None
    assert record["threshold"] == 0.5


def test_gravest_finding_determines_the_row():
    both = (
        FractureCall("hand", "fracture", 0.49, POINT),
        FractureCall("shoulder", "fracture", 0.1, OperatingPoint("balanced", 0.05, 0.05)),
    )
    record = to_record(Outcome(ImageRef(ROOT / "a"), Status.OK, CALL, both), ROOT)
    assert (record["region"], record["verdict"]) == ("shoulder", "positive")
    assert (record["verdict_hand"], record["probability_hand"]) == ("uncertain", 0.49)


def test_finding_of_a_specialist_for_all_regions(tmp_path):
    both = (
        FractureCall("hand", "fracture", 0.1, POINT),
        FractureCall("all", "fracture", 0.8, POINT),
    )
    outcome = Outcome(ImageRef(ROOT / "a.png"), Status.OK, CALL, both)
    assert outcome.unexamined == ()  # the specialist for all regions examined the shoulder
    with (
        CsvWriter(tmp_path / "r.csv", ROOT) as table,
        JsonLinesWriter(tmp_path / "r.jsonl", ROOT) as lines,
    ):
        table.write(outcome)
        lines.write(outcome)
    (row,) = read_csv(tmp_path / "r.csv")
    assert list(row) == list(COLUMNS)
    assert (row["region"], row["verdict"], row["probability"]) == ("all", "positive", "0.8")
    assert (row["verdict_hand"], row["verdict_shoulder"]) == ("negative", "")
    findings = json.loads((tmp_path / "r.jsonl").read_text("utf-8"))["findings"]
    assert [(f["region"], f["verdict"]) for f in findings] == [
        ("hand", "negative"), ("all", "positive"),
    ]  # fmt: skip
    text = " ".join(summary_text([outcome]).split())
    assert "0.800 >= 0.500" in text
    assert "fracture, in a picture of any region" in text
    assert caption(outcome.findings[0]).startswith("fracture, in a picture of the hand: negative")


def test_row_has_no_regions_without_a_region_stage():
    finding = FractureCall("all", "fracture", 0.8, POINT)
    record = to_record(Outcome(ImageRef(ROOT / "a"), Status.OK, None, (finding,)), ROOT)
    assert tuple(record) == COLUMNS
    assert (record["regions"], record["p_hand"], record["region"]) == (None, None, "all")


def test_abnormality_is_not_called_a_fracture(tmp_path):
    outcome = ok(target="abnormality")
    summary, console = Summary(ROOT), Console(width=80)
    with CsvWriter(tmp_path / "a.csv", ROOT) as table, console.capture() as capture:
        table.write(outcome)
        summary.write(outcome)
        summary.print_to(console, tmp_path / "a.csv")
    assert read_csv(tmp_path / "a.csv")[0]["target"] == "abnormality"
    text = " ".join(capture.get().split())
    assert "abnormality, in a picture" in text
    assert "fracture" not in text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sub/ä.png", "sub/ä.png"),
        ("a\nb.png", "a\\nb.png"),
        ("a\udcffb.png", "a\\xffb.png"),
        ("a\u2028b\u202eb", "a\\u2028b\\u202eb"),
        ("a\\nb.png", "a\\\\nb.png"),
    ],
)
def test_paths_are_relative_printable_and_unambiguous(name, text):
    assert path_text(ROOT / name, ROOT) == text


@pytest.mark.parametrize("name", ["ä.png", "a\nb.png", "a\udcffb", "a\\nb.png", "x/../../=1"])
def test_name_of_content_in_memory_is_escaped_like_a_path(name):
    text = image_text(ImageRef(None, name=name), ROOT)
    assert text == path_text(ROOT / name, ROOT) == image_text(ImageRef(ROOT / name), ROOT)
    failed = Outcome(ImageRef(None, 3, None, name), Status.FAILED, error="broken")
    assert (to_record(failed, ROOT)["path"], to_record(failed, ROOT)["frame"]) == (text, 3)


def test_name_of_an_image():
    assert ImageRef(ROOT / "sub/a.png").name == "a.png"
    assert ImageRef(ROOT / "tmp83.dcm", name="IM1").name == "IM1"
    assert ImageRef.of(NamedBytes("sub/a.png", b""), 1) == ImageRef(None, 1, None, "sub/a.png")
    with pytest.raises(ValueError, match="neither a path nor a name"):
        ImageRef(None)


@pytest.mark.parametrize("types", [True, False])
def test_types_are_the_last_column_if_the_weights_have_types(tmp_path, types):
    oblique = {"transverse": 0.12345678, "oblique": 0.8}
    findings = (
        FractureCall("elbow", "fracture", 0.4, POINT, types={"transverse": 0.9}),
        FractureCall("hand", "fracture", 0.7, POINT, types=oblique if types else {}),
    )
    outcomes = [replace(ok(), findings=findings[not types :]), ok(), failed("b.png")]
    table, lines, columns = (tmp_path / name for name in ("results.csv", LINES, "results.parquet"))
    with (
        ParquetWriter(columns, lines, types=types),
        JsonLinesWriter(lines, ROOT) as line_writer,
        CsvWriter(table, ROOT, types=types) as row_writer,
    ):
        for outcome in outcomes:
            line_writer.write(outcome)
            row_writer.write(outcome)
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    actual = parquet.read_table(columns)
    assert list(rows[0]) == actual.column_names == [*COLUMNS, *([TYPES] if types else [])]
    if types:
        expected = ["oblique=0.8;transverse=0.123457", "", ""]
        assert [row[TYPES] for row in rows] == expected
        assert actual[TYPES].to_pylist() == [text or None for text in expected]


def test_invalid_unicode_and_control_characters_are_escaped():
    assert plain("\ud800 \x1b[31m").encode("utf-8") == b"\\ud800 \\x1b[31m"


@pytest.mark.parametrize("name", ["=1+1.png", "+a", "-a", "@a"])
def test_formulas_are_escaped_in_csv_only(tmp_path, name):
    with (
        CsvWriter(tmp_path / "r.csv", ROOT) as table,
        JsonLinesWriter(tmp_path / "r.jsonl", ROOT) as lines,
    ):
        table.write(failed(name, "=boom"))
        lines.write(failed(name, "=boom"))
    row = read_csv(tmp_path / "r.csv")[0]
    assert (row["path"], row["error"]) == ("'" + name, "'=boom")
    assert json.loads((tmp_path / "r.jsonl").read_text("utf-8"))["path"] == name


def test_each_outcome_is_one_line_in_both_files_at_once(tmp_path):
    outcomes = [ok(), failed('a\n"b",c\udc80.png', "line\nbreak"), ok("ü.png")]
    with (
        CsvWriter(tmp_path / "r.csv", ROOT) as table,
        JsonLinesWriter(tmp_path / "r.jsonl", ROOT) as lines,
    ):
        for count, outcome in enumerate(outcomes, start=1):
            table.write(outcome)
            lines.write(outcome)
            assert len((tmp_path / "r.csv").read_bytes().splitlines()) == count + 1
            assert len((tmp_path / "r.jsonl").read_bytes().splitlines()) == count
    rows = read_csv(tmp_path / "r.csv")
    records = [json.loads(x) for x in (tmp_path / "r.jsonl").read_text("utf-8").splitlines()]
    assert [row["path"] for row in rows] == [record["path"] for record in records]
    assert (rows[1]["verdict"], records[1]["verdict"]) == ("", None)
    assert json.loads(rows[0]["bundle_digests"]) == records[0]["bundle_digests"]
    assert records[0]["schema_version"] == RECORD_SCHEMA
    assert records[0]["header"] == {"ViewPosition": "PA"}
    assert records[0]["findings"] == [
        {
            "region": "hand",
            "target": "fracture",
            "verdict": "uncertain",
            "probability": 0.4,
            "threshold": 0.5,
            "doubt_below": 0.3,
            "operating_point": "balanced",
        }
    ]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def summary_text(outcomes: list[Outcome]) -> str:
    summary, console = Summary(ROOT), Console(width=80, no_color=True)
    for outcome in outcomes:
        summary.write(outcome)
    with console.capture() as capture:
        summary.print_to(console, Path("out/results.csv"))
    return capture.get()


def test_short_summary_keeps_the_order_and_ends_with_the_intended_use():
    text = summary_text([failed("z.png"), ok("[red]b.png"), ok("a.png", probability=0.9)])
    assert text.index("z.png") < text.index("[red]b.png") < text.index("a.png")
    assert "3 in all: 1 positive, 1 uncertain, 1 failed" in text
    assert text.rstrip().endswith(INTENDED_USE)
    assert "\x1b" not in text
    assert "shoulder: no specialist" in " ".join(text.split())


def test_long_summary_shows_the_gravest_and_names_the_table():
    many = [ok(f"n{i}.png", probability=0.1) for i in range(400)]
    many[333] = ok("hit.png", probability=0.95)
    many[20] = failed("bad.png")
    text = summary_text(many)
    assert text.index("hit.png") < text.index("bad.png") < text.index("n0.png")
    assert "350 more, less severe: see out/results.csv" in text
    assert "400 in all: 1 positive, 1 failed, 398 negative" in text
