"""Messages of a worker about pictures that cannot be read; others are tested with real workers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.domain import Flag, FractureCall, ImageRef, OperatingPoint, Outcome, Status
from pipeline.outcome_json import to_json
from pipeline.reading.prepared import Wanted
from pipeline.reading.wire import WireError, packed, unpacked

UNREAD = Outcome(
    ImageRef(Path("a.dcm"), 2, "f" * 64),
    Status.UNSUPPORTED,
    error="a.dcm: found a report",
    elapsed_ms=1 / 7,
    flags=(Flag("own-output", "Made by fxpipe itself"),),
    identity={"PatientID": "x"},
)


def test_what_cannot_be_read_arrives_with_every_digit():
    message, arrays = packed(UNREAD)
    received = json.loads(json.dumps(message))
    assert unpacked(received, arrays, Path("a.dcm"), Wanted(())) == UNREAD


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
        to_json(UNREAD) | {"region": {"probabilities": [], "thresholds": []}},
        to_json(UNREAD) | {"header": {"BodyPartExamined": "HAND"}},
        to_json(UNREAD) | {"status": "ok"},
        to_json(UNREAD) | {"flags": [1]},
        {"frame": None},
        [],
    ],
)
def test_a_worker_cannot_give_a_verdict_or_half_a_message(forged):
    message = {"kind": "unread", "outcome": forged}
    with pytest.raises(WireError, match="a picture that is none"):
        unpacked(message, [], Path("a.dcm"), Wanted(()))
