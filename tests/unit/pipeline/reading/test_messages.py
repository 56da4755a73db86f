"""Messages between a run and its workers: encoding, and refusal of malformed messages."""

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
OPTIONS = ReadOptions(SPECS, identity=True, rendered=True)
MAX_BYTES = 1000
CONTENT = NamedBytes("IM\udcff\n1.dcm", b"DICM")
UNREAD = to_json(Outcome(ImageRef.of(CONTENT, 2), Status.UNSUPPORTED, error="broken"))


def sent(message: messages.Message, arrays=()) -> bytes:
    stream = BytesIO()
    messages.send(stream, message, arrays)
    return stream.getvalue()


def received(
    content: bytes, max_bytes: int = MAX_BYTES
) -> tuple[messages.Message, messages.Arrays]:
    return messages.receive(BytesIO(content), max_bytes)


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
        image=ImageRef.of(CONTENT, 3, "f" * 64),
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
def test_message_arrives_unchanged(arrays):
    message, decoded = received(sent({"kind": "x", "text": "Ä\udcff\n"}, arrays))
    assert (message["kind"], message["text"]) == ("x", "Ä\udcff\n")
    assert [array.dtype for array in decoded] == [array.dtype for array in arrays]
    for actual, expected in zip(decoded, arrays, strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_messages_are_received_separately():
    stream = BytesIO(sent({"kind": "a"}, [np.ones(3, np.uint8)]) + sent({"kind": "b"}))
    kinds = [messages.receive(stream, MAX_BYTES)[0]["kind"] for _ in range(2)]
    assert kinds == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "error"),
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
def test_malformed_message_is_an_error(content, error):
    with pytest.raises(messages.MessageError, match=error):
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
def test_any_bytes_are_a_message_or_an_error(header, body):
    try:
        _, arrays = received(framed(json.dumps(header).encode(), body))
    except messages.MessageError:
        return
    assert sum(array.nbytes for array in arrays) <= len(body)


def test_memory_is_requested_before_arrays_are_read():
    class TooMuchError(Exception):
        pass

    requested = []

    def refuse(size: int) -> None:
        requested.append(size)
        raise TooMuchError

    stream = BytesIO(sent({}, [np.ones(7, np.uint8), np.ones(2, np.float32)]))
    with pytest.raises(TooMuchError):
        messages.receive(stream, MAX_BYTES, refuse)
    assert requested == [15]
    assert len(stream.read()) == 15  # the arrays were not read


def test_message_that_is_too_long_or_has_no_reader_is_an_error():
    with pytest.raises(messages.MessageError, match="found a header of"):
        sent({"text": "x" * 2**20})
    reader, writer = os.pipe()
    os.close(reader)
    with (
        os.fdopen(writer, "wb", buffering=0) as stream,
        pytest.raises(messages.MessageError, match="closed pipe"),
    ):
        messages.send(stream, {})


@pytest.mark.parametrize(
    "source", [Path("folder/a\udcff.png"), CONTENT, NamedBytes("empty.png", b"")]
)
@pytest.mark.parametrize("options", [OPTIONS, ReadOptions(SPECS[:1])])
def test_request_arrives_unchanged(source, options, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    actual, same = messages.requested(*received(sent(*messages.request(source, options))))
    assert same == options
    assert actual == (tmp_path / source if isinstance(source, Path) else source)


@pytest.mark.parametrize("source", [CONTENT, Path("a.dcm")])
@pytest.mark.parametrize("rendered", [True, False])
def test_picture_arrives_under_the_name_of_its_source(source, rendered):
    options = replace(OPTIONS, rendered=rendered)
    item = picture(image=ImageRef.of(source, 3, "f" * 64))
    item = item if rendered else replace(item, rendered=None)
    actual = messages.unpacked(*received(sent(*messages.packed(item)), 2**16), source, options)
    assert isinstance(actual, Prepared)
    for name in ("image", "placements", "header", "identity", "flags", "elapsed_ms", "study"):
        assert getattr(actual, name) == getattr(item, name)
    assert list(actual.arrays) == list(item.arrays)
    for spec in SPECS:
        np.testing.assert_array_equal(actual.arrays[spec], item.arrays[spec])
    assert (actual.rendered is None) == (not rendered)
    if actual.rendered is not None and item.rendered is not None:
        assert actual.rendered.reduction == item.rendered.reduction
        np.testing.assert_array_equal(actual.rendered.pixels, item.rendered.pixels)


@pytest.mark.parametrize("unsupported", [True, False])
def test_outcome_of_an_unreadable_picture_arrives(unsupported):
    item = unread(
        CONTENT, 2, None, "broken", 1 / 7,
        unsupported=unsupported, identity={"StudyInstanceUID": "1.2"}, flags=(Flag("a", "b"),),
    )  # fmt: skip
    actual = messages.unpacked(*received(sent(*messages.packed(item)), 2**16), CONTENT, OPTIONS)
    assert isinstance(actual, Outcome)
    assert actual == item
    assert actual.status is (Status.UNSUPPORTED if unsupported else Status.FAILED)


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
def test_picture_with_a_missing_or_invalid_part_is_an_error(change):
    message, arrays = messages.packed(picture())
    changed = {key: value for key, value in (message | change).items() if value is not None}
    with pytest.raises(messages.MessageError, match="found a malformed picture"):
        messages.unpacked(changed, arrays, CONTENT, OPTIONS)


@pytest.mark.parametrize(
    "alter",
    [
        lambda arrays: arrays[:-1],
        lambda arrays: [*arrays, arrays[0]],
        lambda arrays: [arrays[1], arrays[0], arrays[2]],
        lambda arrays: [arrays[0].astype(np.uint8), *arrays[1:]],
        lambda arrays: [*arrays[:2], arrays[2].astype(np.float32)],
        lambda arrays: [],
    ],
)
def test_picture_with_unexpected_arrays_is_an_error(alter):
    message, arrays = messages.packed(picture())
    with pytest.raises(messages.MessageError, match="found a malformed picture"):
        messages.unpacked(message, alter(arrays), CONTENT, OPTIONS)


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
        UNREAD | {"status": "unknown"},
        UNREAD | {"flags": [1]},
        UNREAD | {"frame": -1},
        UNREAD | {"elapsed_ms": float("nan")},
        {"frame": None},
        [],
    ],
)
def test_worker_cannot_send_a_verdict_or_an_incomplete_outcome(forged):
    message = {"kind": "unread", "outcome": forged}
    with pytest.raises(messages.MessageError, match="found a malformed picture"):
        messages.unpacked(message, [], CONTENT, OPTIONS)


def test_values_that_only_the_run_sets_are_cleared():
    forged = UNREAD | {"region": 0, "findings": "", "bundle_digests": [], "header": "", "study": ""}
    valid = messages.unpacked({"kind": "unread", "outcome": UNREAD}, [], CONTENT, OPTIONS)
    assert messages.unpacked({"kind": "unread", "outcome": forged}, [], CONTENT, OPTIONS) == valid
