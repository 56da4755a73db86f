"""Ordered execution on threads: order, limits, errors and early stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from pipeline.ordered_pool import in_order


def pool_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("test-pool")]


def test_results_have_the_order_of_the_tasks():
    first_may_end = threading.Event()

    def first() -> str:
        assert first_may_end.wait(30.0)
        return "first"

    def second() -> str:
        first_may_end.set()
        return "second"

    assert list(in_order([first, second], 2, 2, "test-pool")) == ["first", "second"]
    assert pool_threads() == []


def test_no_tasks_give_no_results():
    assert list(in_order([], 2, 4, "test-pool")) == []


@pytest.mark.parametrize("threads", [1, 3])
def test_number_of_tasks_ahead_is_limited(threads):
    taken = 0

    def tasks() -> Iterator[Callable[[], int]]:
        nonlocal taken
        while True:
            taken += 1
            yield partial(int, taken)

    results = in_order(tasks(), threads, 5, "test-pool")
    assert taken == 0
    for number in range(1, 20):
        assert next(results) == number
        assert taken == number + 4
    results.close()
    assert pool_threads() == []


def test_tasks_are_taken_in_the_thread_of_the_caller():
    names = set()

    def tasks() -> Iterator[Callable[[], str]]:
        for _ in range(4):
            names.add(threading.current_thread().name)
            yield lambda: threading.current_thread().name

    workers = set(in_order(tasks(), 2, 4, "test-pool"))
    assert names == {threading.current_thread().name}
    assert all(name.startswith("test-pool") for name in workers)


def test_error_of_a_task_is_raised_after_earlier_results():
    def fail() -> int:
        raise OSError("the disk was removed")

    results = in_order([lambda: 1, fail, lambda: 3], 2, 3, "test-pool")
    assert next(results) == 1
    with pytest.raises(OSError, match="the disk was removed"):
        next(results)
    assert list(results) == []
    assert pool_threads() == []


def test_closing_cancels_tasks_that_have_not_started():
    started, release = [], threading.Event()

    def task(number: int) -> Callable[[], int]:
        def run() -> int:
            started.append(number)
            if number:
                assert release.wait(30.0)
            return number

        return run

    results = in_order([task(number) for number in range(10)], 1, 10, "test-pool")
    assert next(results) == 0
    while started != [0, 1]:
        time.sleep(0.01)
    threading.Timer(0.2, release.set).start()
    results.close()
    assert started == [0, 1]
    assert pool_threads() == []
