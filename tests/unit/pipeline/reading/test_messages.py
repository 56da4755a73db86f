"""Messages between a run and its workers: what is sent arrives, and nothing else is believed."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain import Flag, ImageRef, Placement, Rendered
from pipeline.outcome import FractureCall, OperatingPoint, Outcome, Status
from pipeline.outcome_json import to_json
from pipeline.preprocess import PreprocessSpec
from pipeline.reading import messages
from pipeline.reading.prepared_picture import Prepared, ReadOptions, unread
from pipeline.source import NamedBytes

SPECS = (PreprocessSpec(height_px=32, width_px=48), PreprocessSpec(height_px=40, width_px=40))
WANTED = ReadOptions(SPECS, identity=True, rendered=True)
MOST_BYTES = 1000
NAMED = NamedBytes("IM\udcff\n1.dcm", b"DICM")
UNREAD = to_json(Outcome(ImageRef.of(NAMED, 2), Status.UNSUPPORTED, error="broken"))


def sent(message: messages.Message, arrays=()) -> bytes:
    stream = BytesIO()
    messages.send(stream, message, arrays)
    return stream.getvalue()


def received(
    content: bytes, most_bytes: int = MOST_BYTES
) -> tuple[messages.Message, messages.Arrays]:
    return messages.receive(BytesIO(content), most_bytes)


def framed(header: bytes, body: bytes = b"") -> bytes:
    return len(header).to_bytes(4, "little") + header + body


def picture(**changes: Any) -> Prepared:
    arrays = [
        np.arange(spec.height_px * spec.width_px, dtype=np.float32).reshape(
            1, spec.height_px, spec.width_px
        )
        for spec in SPECS
    ]
    whole = Prepared(
        image=ImageRef.of(NAMED, 3, "f" * 64),
        arrays=dict(zip(SPECS, arrays, strict=True)),
        placements=dict.fromkeys(SPECS, Placement(0.5, 0.25, 1.0, -2.0, (8, 9), False)),
        header={"Modality": "DX"},
        identity={"PatientID": "Ä\udcfe"},
        rendered=Rendered(np.arange(6, dtype=np.uint8).reshape(2, 3), 4),
        flags=(Flag("blank", "why"),),
        elapsed_ms=1.5,
    )
    return replace(whole, **changes)


@pytest.mark.parametrize(
    "arrays",
    [
        [],
        [np.arange(6, dtype=np.float32).reshape(1, 2, 3), np.arange(4, dtype=np.uint8)],
        [np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::3]],  # not contiguous
    ],
)
def test_what_is_sent_arrives(arrays):
    message, found = received(sent({"kind": "x", "text": "Ä\udcff\n"}, arrays))
    assert (message["kind"], message["text"]) == ("x", "Ä\udcff\n")
    assert [array.dtype for array in found] == [array.dtype for array in arrays]
    for ours, theirs in zip(found, arrays, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_messages_arrive_one_by_one():
    stream = BytesIO(sent({"kind": "a"}, [np.ones(3, np.uint8)]) + sent({"kind": "b"}))
    kinds = [messages.receive(stream, MOST_BYTES)[0]["kind"] for _ in range(2)]
    assert kinds == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the end in the middle"),
        (b"\0\0", "the end in the middle"),
        (framed(b'{"arrays": []}')[:-1], "the end in the middle"),
        (sent({}, [np.ones(3, np.uint8)])[:-1], "the end in the middle"),
        (b"\xff\xff\xff\xff", "a header of 4294967295 bytes"),
        (framed(b"not JSON"), "a malformed header"),
        (framed(b"\xff\xfe"), "a malformed header"),
        (framed(b"[" * 100_000), "a malformed header"),
        (framed(b"[]"), "a malformed header"),
        (framed(b"{}"), "a malformed header"),
        (framed(b'{"arrays": [["float64", 1]]}'), "a malformed header"),
        (framed(b'{"arrays": [[["uint8"], 1]]}'), "a malformed header"),
        (framed(b'{"arrays": [7]}'), "a malformed header"),
        (framed(b'{"arrays": [["uint8", "1"]]}'), "a malformed header"),
        (framed(b'{"arrays": [["uint8", 1001]]}'), "expected at most 1000"),
        (framed(b'{"arrays": [["uint8", 600], ["uint8", 600]]}'), "expected at most 1000"),
        (framed(b'{"arrays": [["float32", 1000000, 1000000]]}'), "expected at most 1000"),
        (framed(b'{"arrays": [["uint8", 0]]}'), "a malformed header"),
        (framed(b'{"arrays": [["uint8", -1, -1]]}'), "a malformed header"),
        (framed(b'{"arrays": [["uint8", 1.5]]}'), "a malformed header"),
        (framed(b'{"arrays": [["uint8", true]]}'), "a malformed header"),
    ],
)
def test_what_may_not_be_said_is_an_error(content, words):
    with pytest.raises(messages.WireError, match=words):
        received(content)


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    )
    | st.builds(
        lambda shapes: {"arrays": shapes},
        st.lists(st.lists(st.sampled_from(["uint8", "float32"]) | st.integers(-2, 40) | st.none())),
    ),
    st.binary(max_size=200),
)
def test_whatever_is_said_is_a_message_or_an_error(header, body):
    try:
        _, arrays = received(framed(json.dumps(header).encode(), body))
    except messages.WireError:
        return
    assert sum(array.nbytes for array in arrays) <= len(body)


def test_memory_is_asked_for_before_it_is_taken():
    class TooMuchError(Exception):
        pass

    held = []

    def refuse(size: int) -> None:
        held.append(size)
        raise TooMuchError

    stream = BytesIO(sent({}, [np.ones(7, np.uint8), np.ones(2, np.float32)]))
    with pytest.raises(TooMuchError):
        messages.receive(stream, MOST_BYTES, refuse)
    assert held == [15]
    assert len(stream.read()) == 15  # nothing of the arrays was read


def test_a_message_that_is_too_long_or_has_no_reader_is_an_error():
    with pytest.raises(messages.WireError, match="found a header of"):
        sent({"text": "x" * 2**20})
    ours, theirs = os.pipe()
    os.close(ours)
    with (
        os.fdopen(theirs, "wb", buffering=0) as stream,
        pytest.raises(messages.WireError, match="closed pipe"),
    ):
        messages.send(stream, {})


@pytest.mark.parametrize(
    "source", [Path("folder/a\udcff.png"), NAMED, NamedBytes("empty.png", b"")]
)
@pytest.mark.parametrize("wanted", [WANTED, ReadOptions(SPECS[:1])])
def test_a_request_arrives(source, wanted, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found, same = messages.requested(*received(sent(*messages.request(source, wanted))))
    assert same == wanted
    assert found == (tmp_path / source if isinstance(source, Path) else source)


@pytest.mark.parametrize("source", [NAMED, Path("a.dcm")])
@pytest.mark.parametrize("shown", [True, False])
def test_a_picture_arrives_under_the_name_of_its_source(source, shown):
    wanted = replace(WANTED, rendered=shown)
    item = picture(image=ImageRef.of(source, 3, "f" * 64))
    item = item if shown else replace(item, rendered=None)
    found = messages.unpacked(*received(sent(*messages.packed(item)), 2**16), source, wanted)
    assert isinstance(found, Prepared)
    for name in ("image", "placements", "header", "identity", "flags", "elapsed_ms", "study"):
        assert getattr(found, name) == getattr(item, name)
    assert list(found.arrays) == list(item.arrays)
    for spec in SPECS:
        np.testing.assert_array_equal(found.arrays[spec], item.arrays[spec])
    assert (found.rendered is None) == (not shown)
    if found.rendered is not None and item.rendered is not None:
        assert found.rendered.reduction == item.rendered.reduction
        np.testing.assert_array_equal(found.rendered.pixels, item.rendered.pixels)


@pytest.mark.parametrize("unsupported", [True, False])
def test_why_nothing_was_read_arrives(unsupported):
    item = unread(
        NAMED, 2, None, "broken", 1 / 7,
        unsupported=unsupported, identity={"StudyInstanceUID": "1.2"}, flags=(Flag("a", "b"),),
    )  # fmt: skip
    found = messages.unpacked(*received(sent(*messages.packed(item)), 2**16), NAMED, WANTED)
    assert isinstance(found, Outcome)
    assert found == item
    assert found.status is (Status.UNSUPPORTED if unsupported else Status.FAILED)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": None},
        {"placements": []},
        {"placements": [[1, 2, 3]] * 2},
        {"flags": [{}]},
        {"frame": "1"},
        {"frame": -1},
        {"frame": 1.5},
        {"elapsed_ms": float("inf")},
        {"elapsed_ms": "1"},
        {"kind": "unread"},
        {"reduction": float("inf")},
        {"header": 7},
        {"reduction": 0, "flags": 7},
    ],
)
def test_a_picture_with_a_part_missing_or_wrong_is_an_error(change):
    message, arrays = messages.packed(picture())
    changed = {key: value for key, value in (message | change).items() if value is not None}
    with pytest.raises(messages.WireError, match="found a malformed picture"):
        messages.unpacked(changed, arrays, NAMED, WANTED)


@pytest.mark.parametrize(
    "meddle",
    [
        lambda arrays: arrays[:-1],
        lambda arrays: [*arrays, arrays[0]],
        lambda arrays: [arrays[1], arrays[0], arrays[2]],
        lambda arrays: [arrays[0].astype(np.uint8), *arrays[1:]],
        lambda arrays: [*arrays[:2], arrays[2].astype(np.float32)],
        lambda arrays: [],
    ],
)
def test_a_picture_with_other_arrays_than_were_wanted_is_an_error(meddle):
    message, arrays = messages.packed(picture())
    with pytest.raises(messages.WireError, match="found a malformed picture"):
        messages.unpacked(message, meddle(arrays), NAMED, WANTED)


@pytest.mark.parametrize(
    "forged",
    [
        to_json(
            Outcome(
                ImageRef(Path("a.dcm")),
                Status.OK,
                findings=(FractureCall("hand", "fracture", 0.9, OperatingPoint("own", 0.5, 0.5)),),
            )
        ),
        UNREAD | {"region": {"probabilities": [], "thresholds": []}},
        UNREAD | {"header": {"BodyPartExamined": "HAND"}},
        UNREAD | {"status": "ok"},
        UNREAD | {"status": "well"},
        UNREAD | {"flags": [1]},
        UNREAD | {"frame": -1},
        UNREAD | {"elapsed_ms": float("nan")},
        {"frame": None},
        [],
    ],
)
def test_a_worker_cannot_give_a_verdict_or_half_a_message(forged):
    message = {"kind": "unread", "outcome": forged}
    with pytest.raises(messages.WireError, match="found a malformed picture"):
        messages.unpacked(message, [], NAMED, WANTED)


def test_what_only_the_run_says_is_empty_however_a_worker_puts_it():
    forged = UNREAD | {"region": 0, "findings": "", "bundle_digests": [], "header": "", "study": ""}
    honest = messages.unpacked({"kind": "unread", "outcome": UNREAD}, [], NAMED, WANTED)
    assert messages.unpacked({"kind": "unread", "outcome": forged}, [], NAMED, WANTED) == honest
