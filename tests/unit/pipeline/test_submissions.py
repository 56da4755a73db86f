"""Submitted sources: results, limits, errors, cancellation and closing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import BusyError
from pipeline.submissions import Submissions
from pipeline.threaded_pipeline import Limits, Result

LIMITS = Limits(readers=3, lanes=2, batch=4, files=6, items=8)


def split(text: str) -> Iterator[str | Result[str]]:
    """Letters must be judged; any other character is already a result."""
    return (c if c.isalpha() else Result(c) for c in text)


def upper(items: Sequence[str]) -> list[str]:
    return [item.upper() for item in items]


def submissions_for(read=split, judge=upper, limits=LIMITS, max_bytes=10**6, **changes):
    return Submissions(read, judge, limits, len, max_bytes, **changes)


class Gate:
    """A reader that blocks on sources that begin with ``slow`` until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        self.read: list[str] = []

    def __call__(self, text: str) -> Iterator[str | Result[str]]:
        self.read.append(text)
        if text.startswith("slow"):
            self.reached.set()
            assert self.opened.wait(30.0)
        yield from split(text)


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("fxpipe-")]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text("abc-", max_size=12), max_size=20),
    st.builds(
        Limits,
        readers=st.integers(1, 4), lanes=st.integers(1, 3), batch=st.integers(1, 5),
        files=st.integers(1, 7), items=st.integers(1, 9),
    ),
)  # fmt: skip
def test_each_source_gets_its_results_in_order(sources, bounds):
    submissions = submissions_for(limits=bounds, max_bytes=5)
    futures = [submissions.submit(text) for text in sources]
    assert ["".join(future.result(30.0)) for future in futures] == [s.upper() for s in sources]
    submissions.close()
    assert not threads()


def test_result_arrives_before_the_next_source():
    submissions = submissions_for()
    for number in range(50):
        assert submissions.submit("a" * (number % 3)).result(30.0) == ["A"] * (number % 3)
    submissions.close()


def test_results_of_many_threads_are_not_mixed():
    submissions = submissions_for()
    texts = [f"{'ab-'[i % 3] * (i % 7)}" for i in range(200)]
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda text: submissions.submit(text).result(30.0), texts))
    assert ["".join(result) for result in results] == [text.upper() for text in texts]
    submissions.close()


def test_result_does_not_wait_for_another_source():
    gate = Gate()
    submissions = submissions_for(gate)
    slow, quick = submissions.submit("slow"), submissions.submit("quick")
    assert next(as_completed([slow, quick], 30.0)) is quick
    assert not slow.done()
    gate.opened.set()
    assert slow.result(30.0) == [*"SLOW"]
    submissions.close()


@pytest.mark.parametrize(
    ("bounds", "max_bytes"),
    [
        (Limits(readers=1, lanes=1, batch=1, files=2, items=1), 1000),
        (LIMITS, 5),  # the bytes of the first source and one more source
    ],
)
def test_caller_waits_while_the_limits_are_reached(bounds, max_bytes):
    gate = Gate()
    submissions = submissions_for(gate, limits=bounds, max_bytes=max_bytes)
    first = submissions.submit("slow")
    second = submissions.submit("slow again")
    started = time.perf_counter()
    with pytest.raises(BusyError, match="found 2 files of 14 bytes in flight, expected fewer"):
        submissions.submit("busy", timeout=0)
    with pytest.raises(BusyError):
        submissions.submit("busy", timeout=0.2)
    assert time.perf_counter() - started >= 0.2
    with ThreadPoolExecutor(1) as pool:
        third = pool.submit(submissions.submit, "patient")
        time.sleep(0.1)
        assert not third.done()
        gate.opened.set()
        assert third.result(30.0).result(30.0) == [*"PATIENT"]
    assert [first.result(30.0), second.result(30.0)] == [[*"SLOW"], [*"SLOW AGAIN"]]
    assert "busy" not in gate.read
    assert submissions.submit("b", timeout=0).result(30.0) == ["B"]
    submissions.close()


def test_source_above_the_byte_limit_is_accepted_alone():
    submissions = submissions_for(max_bytes=3)
    assert submissions.submit("abcdef").result(30.0) == [*"ABCDEF"]
    submissions.close()


@pytest.mark.parametrize("where", ["read", "judge"])
def test_error_affects_only_its_source(where):
    def read(text: str) -> Iterator[str]:
        yield from text[:2]
        if where == "read" and text == "bad":
            raise ValueError("of the reader")
        yield from text[2:]

    def judge(items: Sequence[str]) -> list[str]:
        if where == "judge" and "d" in items:
            raise ValueError("of the lane")
        return upper(items)

    single = Limits(readers=1, lanes=1, batch=1, files=3, items=3)
    submissions = submissions_for(read, judge, single)
    futures = [submissions.submit(text) for text in ("good"[:3], "bad", "goo")]
    assert [futures[0].result(30.0), futures[2].result(30.0)] == [[*"GOO"], [*"GOO"]]
    with pytest.raises(ValueError, match="of the"):
        futures[1].result(30.0)
    submissions.close()


def test_missing_result_of_a_lane_is_an_error():
    submissions = submissions_for(judge=lambda items: [])
    with pytest.raises(RuntimeError, match="0 results for 1 items"):
        submissions.submit("a").result(30.0)
    submissions.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_futures_get_an_error_if_a_reader_thread_ends():
    def read(text: str) -> Iterator[str]:
        raise SystemExit

    submissions = submissions_for(read)
    with pytest.raises(RuntimeError, match="the engine ended"):
        submissions.submit("a").result(30.0)
    with pytest.raises(RuntimeError, match="after the end"):
        submissions.submit("a")
    submissions.close()


def test_cancelled_source_is_not_read():
    gate = Gate()
    submissions = submissions_for(
        gate, limits=Limits(readers=1, lanes=1, batch=1, files=2, items=1)
    )
    slow = submissions.submit("slow")
    assert gate.reached.wait(30.0)
    cancelled = submissions.submit("never")
    assert cancelled.cancel()
    assert not slow.cancel()
    gate.opened.set()
    assert slow.result(30.0) == [*"SLOW"]
    assert submissions.submit("next").result(30.0) == [
        *"NEXT"
    ]  # the cancelled source counts no longer
    submissions.close()
    assert gate.read == ["slow", "next"]


def test_close_waits_for_submitted_sources():
    gate = Gate()
    submissions = submissions_for(gate)
    futures = [submissions.submit(text) for text in ("slow", "quick")]
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(submissions.close)
        time.sleep(0.1)
        assert not closing.done()
        with pytest.raises(RuntimeError, match="after the end"):
            submissions.submit("late")
        gate.opened.set()
        closing.result(30.0)
    assert [future.done() for future in futures] == [True, True]
    assert futures[0].result() == [*"SLOW"]
    submissions.close()
    assert not threads()


def test_close_without_waiting_cancels_the_futures():
    gate = Gate()
    single = Limits(readers=1, lanes=1, batch=1, files=3, items=1)
    submissions = submissions_for(gate, limits=single, give_up=gate.opened.set)
    slow, later = submissions.submit("slow"), submissions.submit("later")
    assert gate.reached.wait(30.0)
    submissions.close(wait=False)
    for future in (slow, later):
        with pytest.raises(CancelledError):
            future.result(0)
    assert gate.read == ["slow"]
    assert not threads()


def test_close_without_submissions_starts_no_thread():
    submissions = submissions_for()
    submissions.close()
    assert not threads()
