"""Output files that can be truncated, atomic files, and damaged journals."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.domain import Flag, ImageRef
from pipeline.errors import OutputError
from pipeline.outcome import FractureCall, HeaderEffect, OperatingPoint, Outcome, RegionCall, Status
from pipeline.outcome_json import from_json, to_json
from pipeline.report.journal import NAME, begin, read
from pipeline.report.stream import Mark, Stream, write_whole

POINT = OperatingPoint("balanced", 0.5, 0.1 + 0.2)


def test_stream_is_truncated_to_its_mark(tmp_path):
    path = tmp_path / "a.txt"
    first = Stream(path)
    first.write("one Ä\n")
    first.flush()
    mark = first.mark
    first.write("two, which is longer\n")
    first.close(whole=True)
    assert mark == Mark(len("one Ä\n".encode()), mark.crc)
    again = Stream(path, mark)
    again.write("2\n")
    again.flush()
    assert path.read_bytes() == "one Ä\n2\n".encode()
    uninterrupted = Stream(tmp_path / "b.txt")
    uninterrupted.write("one Ä\n2\n")
    uninterrupted.close(whole=True)
    assert uninterrupted.mark == again.mark
    again.close(whole=False)


def test_buffered_text_is_not_written_when_a_run_is_aborted(tmp_path):
    stream = Stream(tmp_path / "a.txt")
    stream.write("half a row")
    stream.close(whole=False)
    assert (tmp_path / "a.txt").read_bytes() == b""


@pytest.mark.parametrize("replaced", [False, True])
def test_deleted_folder_is_detected(tmp_path, replaced):
    folder = tmp_path / "out"
    folder.mkdir()
    stream = Stream(folder / "a.txt")
    shutil.rmtree(folder)
    if replaced:
        folder.mkdir()
        (folder / "a.txt").write_text("another")
    stream.write("lost\n")
    stream.flush()
    with pytest.raises(OutputError, match=r"a\.txt: (cannot be written|found another file)"):
        stream.sync()
    stream.close(whole=False)


def test_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OutputError, match=r"a\.png: cannot be written"):
        write_whole(tmp_path / "a.png", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def outcomes() -> list[Outcome]:
    call = RegionCall({"hand": 1 / 3, "elbow": 0.0}, {"hand": 0.1, "elbow": 0.5})
    vetoed = replace(call, header_effect=HeaderEffect.VETOED, veto="the header says knee",
                     density=1 / 7, density_threshold=2 / 7)  # fmt: skip
    return [
        Outcome(
            image=ImageRef(Path("a.dcm"), 2, "f" * 64),
            status=Status.OK,
            region=call,
            findings=(FractureCall("hand", "fracture", 0.49999999999, POINT),),
            elapsed_ms=1 / 7,
            bundle_digests={"region": "a" * 64},
            header={"ViewPosition": "\udcff"},
            flags=(Flag("blank", "found nothing\n"),),
            study="dicom/1",
            identity={"PatientID": "x"},
        ),
        Outcome(ImageRef(Path("b")), Status.FAILED, error="broken"),
        Outcome(
            ImageRef(Path("c"), None, "e" * 64), Status.UNSUPPORTED, region=vetoed, error="knee"
        ),
    ]


@pytest.mark.parametrize("outcome", outcomes(), ids=lambda outcome: outcome.status)
def test_outcomes_are_restored_exactly(outcome):
    values = json.loads(json.dumps(to_json(outcome)))
    assert from_json(values, outcome.image.path) == outcome


def test_damaged_journal_is_read_up_to_the_damage(tmp_path):
    mark = begin(tmp_path, {"run": {"input": "in"}})
    assert [(line, end) for line, end in read(tmp_path)] == [({"run": {"input": "in"}}, mark)]
    whole = (tmp_path / NAME).read_bytes()
    begin(tmp_path, {"a": 1})
    line = (tmp_path / NAME).read_bytes()
    for size in range(len(line)):
        (tmp_path / NAME).write_bytes(whole + line[:size])
        assert len(list(read(tmp_path))) == 1
    (tmp_path / NAME).write_bytes(whole + line + b"\0" * 4096)
    (_, (content, end)) = read(tmp_path)
    assert (content, end.rows, end.size) == ({"a": 1}, 1, len(whole + line))
    (tmp_path / NAME).write_bytes(whole + line.replace(b'"a"', b'"b"'))
    assert len(list(read(tmp_path))) == 1
    (tmp_path / NAME).unlink()
    assert list(read(tmp_path)) == []
