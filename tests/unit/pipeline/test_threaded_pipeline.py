"""Readers and lanes on threads: order, limits, errors and closing."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.threaded_pipeline import Flow, Limits, Result

LIMITS = Limits(readers=3, lanes=2, batch=4, files=6, items=8)


def split(text: str) -> Iterator[str | Result[str]]:
    """Letters must be judged; any other character is already a result."""
    return (c if c.isalpha() else Result(c) for c in text)


def letters(text: str) -> Iterator[str]:
    yield from text


def upper(items: Sequence[str]) -> list[str]:
    return [item.upper() for item in items]


limits = st.builds(
    Limits,
    readers=st.integers(1, 4), lanes=st.integers(1, 3), batch=st.integers(1, 5),
    files=st.integers(1, 7), items=st.integers(1, 9),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abc-", max_size=12), max_size=20), limits)
def test_each_item_has_one_result_in_order(sources, bounds):
    assert "".join(Flow(split, upper, bounds).results(sources)) == "".join(sources).upper()
    unordered = Flow(split, upper, bounds, ordered=False).results(sources)
    assert sorted(unordered) == sorted("".join(sources).upper())


def test_number_of_items_in_flight_is_limited():
    lock, in_flight, largest = threading.Lock(), 0, 0
    taken = 0

    def read(source: int) -> Iterator[int]:
        nonlocal in_flight, largest
        for item in range(50):
            with lock:
                in_flight += 1
                largest = max(largest, in_flight)
            yield item

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = Flow(read, lambda items: [-item for item in items], LIMITS).results(endless())
    for _ in range(120):
        next(results)
        with lock:
            in_flight -= 1
    time.sleep(0.2)
    # Twice the items (those of the next file are counted separately), and one in each reader.
    assert largest <= 2 * LIMITS.items + LIMITS.readers + 1
    assert taken <= 3 + LIMITS.files
    results.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("fxpipe-")]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("where", ["read", "judge"])
def test_error_is_raised_to_the_caller_and_give_up_is_called(where, ordered):
    gave_up = threading.Event()

    def read(text: str) -> Iterator[str]:
        if text == "bad" and where == "read":
            raise ValueError("of the reader")
        if text == "stuck":
            assert gave_up.wait(30.0)
        yield text

    def judge(items: Sequence[str]) -> Sequence[str]:
        if "bad" in items:
            raise ValueError("of the lane")
        return items

    flow = Flow(read, judge, LIMITS, ordered=ordered, give_up=gave_up.set)
    with pytest.raises(ValueError, match="of the"):
        list(flow.results(["good", "bad", "stuck"]))
    assert gave_up.is_set()


def test_missing_result_of_a_lane_is_an_error():
    def judge(items: Sequence[str]) -> list[str]:
        return []

    with pytest.raises(RuntimeError, match="0 results for"):
        list(Flow(split, judge, LIMITS).results(["ab"]))


def test_blocked_source_does_not_delay_closing():
    never = threading.Event()

    def source() -> Iterator[str]:
        yield "a"
        never.wait()

    results = Flow(split, upper, LIMITS).results(source())
    assert next(results) == "A"
    started = time.perf_counter()
    results.close()
    assert time.perf_counter() - started < 10.0
    never.set()


class Slow:
    """Reads letters, but blocks on sources that begin with ``a`` until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def __call__(self, text: str) -> Iterator[str]:
        if text.startswith("a"):
            assert self.opened.wait(30.0)
        yield from text


def test_only_ordered_results_wait_for_earlier_sources():
    for ordered in (True, False):
        read = Slow()
        results = Flow(read, upper, LIMITS, ordered=ordered).results(["a1", "b2", "c3"])
        if ordered:
            threading.Timer(0.3, read.opened.set).start()
            assert "".join(results) == "A1B2C3"
        else:
            early = [next(results) for _ in range(4)]
            assert sorted(early) == ["2", "3", "B", "C"]
            read.opened.set()
            assert sorted(results) == ["1", "A"]


def test_slow_lane_delays_only_later_results():
    opened = threading.Event()

    def judge(items: Sequence[str]) -> Sequence[str]:
        if "B" in items:
            assert opened.wait(30.0)
        return items

    single = Limits(readers=2, lanes=3, batch=1, files=6, items=8)
    results = Flow(letters, judge, single).results(["a", "B", "c", "d"])
    assert next(results) == "a"
    opened.set()
    assert "".join(results) == "Bcd"


def test_source_without_items_does_not_block_others():
    for ordered in (True, False):
        results = Flow(split, upper, LIMITS, ordered=ordered).results(["", "a", "", "", "b", ""])
        assert sorted(results) == ["A", "B"]


def test_source_is_released_while_waiting_for_the_next_one():
    """A source may be the content of a large file."""

    class Content:
        pass

    alive: list[weakref.ref[Content]] = []
    more = threading.Event()

    def new_content() -> Content:
        content = Content()
        alive.append(weakref.ref(content))
        return content

    def sources() -> Iterator[Content]:
        yield new_content()
        more.wait(30.0)

    def read(content: Content) -> Iterator[str]:
        yield "a"

    results = Flow(read, upper, LIMITS).results(sources())
    assert next(results) == "A"
    for _ in range(50):
        gc.collect()
        if alive[0]() is None:
            break
        time.sleep(0.1)
    assert alive[0]() is None
    more.set()
    assert next(results, None) is None
