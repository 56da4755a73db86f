"""Sources through readers and lanes: order, bounds, and ends."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.threaded_pipeline import Flow, Limits, Result

LIMITS = Limits(readers=3, lanes=2, batch=4, files=6, items=8)


def split(text: str) -> Iterator[str | Result[str]]:
    """Letters have to be judged; what is no letter is a result already."""
    return (c if c.isalpha() else Result(c) for c in text)


def louder(items: list[str]) -> list[str]:
    return [item.upper() for item in items]


limits = st.builds(
    Limits,
    readers=st.integers(1, 4), lanes=st.integers(1, 3), batch=st.integers(1, 5),
    files=st.integers(1, 7), items=st.integers(1, 9),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abc-", max_size=12), max_size=20), limits)
def test_every_item_has_one_result_in_its_place(sources, bounds):
    assert "".join(Flow(split, louder, bounds).results(sources)) == "".join(sources).upper()
    loose = Flow(split, louder, bounds, ordered=False).results(sources)
    assert sorted(loose) == sorted("".join(sources).upper())


def test_no_more_is_in_flight_than_may_be():
    lock, under_way, most = threading.Lock(), 0, 0
    taken = 0

    def read(source: int) -> Iterator[int]:
        nonlocal under_way, most
        for item in range(50):
            with lock:
                under_way += 1
                most = max(most, under_way)
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
            under_way -= 1
    time.sleep(0.2)
    # Twice the items (those of the next file count apart), and one in the hands of each reader.
    assert most <= 2 * LIMITS.items + LIMITS.readers + 1
    assert taken <= 3 + LIMITS.files
    results.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("fxpipe-")]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("where", ["read", "judge"])
def test_an_error_is_raised_where_the_caller_waits_and_readers_are_told(where, ordered):
    told = threading.Event()

    def read(text: str) -> Iterator[str]:
        if text == "bad" and where == "read":
            raise ValueError("of the reader")
        if text == "stuck":
            assert told.wait(30.0)
        yield text

    def judge(items: list[str]) -> list[str]:
        if "bad" in items:
            raise ValueError("of the lane")
        return items

    flow = Flow(read, judge, LIMITS, ordered=ordered, give_up=told.set)
    with pytest.raises(ValueError, match="of the"):
        list(flow.results(["good", "bad", "stuck"]))
    assert told.is_set()


def test_a_lane_that_loses_an_item_is_an_error_and_no_endless_wait():
    with pytest.raises(RuntimeError, match="0 results for"):
        list(Flow(split, lambda items: [], LIMITS).results(["ab"]))


def test_a_source_that_never_gives_another_item_holds_up_no_end():
    never = threading.Event()

    def source() -> Iterator[str]:
        yield "a"
        never.wait()

    results = Flow(split, louder, LIMITS).results(source())
    assert next(results) == "A"
    started = time.perf_counter()
    results.close()
    assert time.perf_counter() - started < 10.0
    never.set()


class Slow:
    """Reads letters; those of a source that begins with ``a`` only when it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def __call__(self, text: str) -> Iterator[str]:
        if text.startswith("a"):
            assert self.opened.wait(30.0)
        yield from text


def test_in_order_a_result_waits_for_the_sources_before_it_and_out_of_order_for_none():
    for ordered in (True, False):
        read = Slow()
        results = Flow(read, louder, LIMITS, ordered=ordered).results(["a1", "b2", "c3"])
        if ordered:
            threading.Timer(0.3, read.opened.set).start()
            assert "".join(results) == "A1B2C3"
        else:
            early = [next(results) for _ in range(4)]
            assert sorted(early) == ["2", "3", "B", "C"]
            read.opened.set()
            assert sorted(results) == ["1", "A"]


def test_in_order_a_slow_lane_holds_up_only_what_comes_after_it():
    opened = threading.Event()

    def judge(items: list[str]) -> list[str]:
        if "B" in items:
            assert opened.wait(30.0)
        return items

    one_by_one = Limits(readers=2, lanes=3, batch=1, files=6, items=8)
    results = Flow(lambda text: iter(text), judge, one_by_one).results(["a", "B", "c", "d"])
    assert next(results) == "a"
    opened.set()
    assert "".join(results) == "Bcd"


def test_a_source_without_items_holds_up_no_other():
    for ordered in (True, False):
        found = Flow(split, louder, LIMITS, ordered=ordered).results(["", "a", "", "", "b", ""])
        assert sorted(found) == ["A", "B"]


def test_a_source_is_not_kept_while_the_next_one_is_waited_for():
    """It may be the content of a large file."""

    class Content:
        pass

    alive: list[weakref.ref[Content]] = []
    more = threading.Event()

    def made() -> Content:
        content = Content()
        alive.append(weakref.ref(content))
        return content

    def sources() -> Iterator[Content]:
        yield made()
        more.wait(30.0)

    results = Flow(lambda _: iter("a"), louder, LIMITS).results(sources())
    assert next(results) == "A"
    for _ in range(50):
        gc.collect()
        if alive[0]() is None:
            break
        time.sleep(0.1)
    assert alive[0]() is None
    more.set()
    assert next(results, None) is None
