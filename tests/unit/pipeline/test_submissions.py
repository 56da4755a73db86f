"""Sources that are submitted one by one: answers at once, bounds, errors, and the end."""

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
    """Letters have to be judged; any other character is a result already."""
    return (c if c.isalpha() else Result(c) for c in text)


def louder(items: Sequence[str]) -> list[str]:
    return [item.upper() for item in items]


def opened(read=split, judge=louder, limits=LIMITS, max_bytes=10**6, **changes):
    return Submissions(read, judge, limits, len, max_bytes, **changes)


class Gate:
    """A reader that waits before sources that begin with ``slow``, until it is opened."""

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
def test_every_source_has_its_own_results_in_their_order(sources, bounds):
    submissions = opened(limits=bounds, max_bytes=5)
    futures = [submissions.submit(text) for text in sources]
    assert ["".join(future.result(30.0)) for future in futures] == [s.upper() for s in sources]
    submissions.close()
    assert not threads()


def test_each_of_an_endless_number_has_its_answer_before_the_next_one_comes():
    submissions = opened()
    for number in range(50):
        assert submissions.submit("a" * (number % 3)).result(30.0) == ["A"] * (number % 3)
    submissions.close()


def test_many_threads_get_their_own_answers():
    submissions = opened()
    texts = [f"{'ab-'[i % 3] * (i % 7)}" for i in range(200)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda text: submissions.submit(text).result(30.0), texts))
    assert ["".join(answer) for answer in found] == [text.upper() for text in texts]
    submissions.close()


def test_an_answer_waits_for_no_other():
    gate = Gate()
    submissions = opened(gate)
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
        (LIMITS, 5),  # as many bytes as the first has, and one source more
    ],
)
def test_a_caller_waits_while_too_much_is_in_flight(bounds, max_bytes):
    gate = Gate()
    submissions = opened(gate, limits=bounds, max_bytes=max_bytes)
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


def test_a_source_larger_than_all_there_may_be_is_accepted_alone():
    submissions = opened(max_bytes=3)
    assert submissions.submit("abcdef").result(30.0) == [*"ABCDEF"]
    submissions.close()


@pytest.mark.parametrize("where", ["read", "judge"])
def test_an_error_is_that_of_its_own_source(where):
    def read(text: str) -> Iterator[str]:
        yield from text[:2]
        if where == "read" and text == "bad":
            raise ValueError("of the reader")
        yield from text[2:]

    def judge(items: Sequence[str]) -> list[str]:
        if where == "judge" and "d" in items:
            raise ValueError("of the lane")
        return louder(items)

    one_by_one = Limits(readers=1, lanes=1, batch=1, files=3, items=3)
    submissions = opened(read, judge, one_by_one)
    futures = [submissions.submit(text) for text in ("good"[:3], "bad", "goo")]
    assert [futures[0].result(30.0), futures[2].result(30.0)] == [[*"GOO"], [*"GOO"]]
    with pytest.raises(ValueError, match="of the"):
        futures[1].result(30.0)
    submissions.close()


def test_a_lane_that_loses_an_item_is_an_error_and_no_endless_wait():
    submissions = opened(judge=lambda items: [])
    with pytest.raises(RuntimeError, match="0 results for 1 items"):
        submissions.submit("a").result(30.0)
    submissions.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_no_future_is_left_when_all_ends():
    def read(text: str) -> Iterator[str]:
        raise SystemExit

    submissions = opened(read)
    with pytest.raises(RuntimeError, match="the engine ended"):
        submissions.submit("a").result(30.0)
    with pytest.raises(RuntimeError, match="after the end"):
        submissions.submit("a")
    submissions.close()


def test_a_source_that_was_cancelled_in_time_is_not_read():
    gate = Gate()
    submissions = opened(gate, limits=Limits(readers=1, lanes=1, batch=1, files=2, items=1))
    slow = submissions.submit("slow")
    assert gate.reached.wait(30.0)
    cancelled = submissions.submit("never")
    assert cancelled.cancel()
    assert not slow.cancel()
    gate.opened.set()
    assert slow.result(30.0) == [*"SLOW"]
    assert submissions.submit("next").result(30.0) == [*"NEXT"]  # its place is free again
    submissions.close()
    assert gate.read == ["slow", "next"]


def test_the_end_waits_for_what_was_submitted():
    gate = Gate()
    submissions = opened(gate)
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


def test_what_is_abandoned_has_an_error_and_no_answer():
    gate = Gate()
    one_by_one = Limits(readers=1, lanes=1, batch=1, files=3, items=1)
    submissions = opened(gate, limits=one_by_one, give_up=gate.opened.set)
    slow, later = submissions.submit("slow"), submissions.submit("later")
    assert gate.reached.wait(30.0)
    submissions.close(wait=False)
    for future in (slow, later):
        with pytest.raises(CancelledError):
            future.result(0)
    assert gate.read == ["slow"]
    assert not threads()


def test_closing_what_was_never_used_starts_nothing():
    submissions = opened()
    submissions.close()
    assert not threads()
