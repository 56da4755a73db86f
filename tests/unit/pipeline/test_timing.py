"""The clock: nested work is counted once, and the times of threads are added."""

from __future__ import annotations

import threading
import time

import pytest

from pipeline.timing import Clock


def test_nested_work_is_not_counted_twice():
    clock = Clock()
    with clock.measure("outer"):
        time.sleep(0.02)
        with clock.measure("inner"):
            time.sleep(0.06)
        with clock.measure("inner"):
            time.sleep(0.02)
    assert clock.seconds["inner"] >= 0.08
    assert 0.02 <= clock.seconds["outer"] < clock.seconds["inner"]


def test_times_of_threads_are_added():
    clock = Clock()

    def work() -> None:
        with clock.measure("outer"), clock.measure("inner"):
            time.sleep(0.03)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.seconds["inner"] >= 0.12
    assert clock.seconds["outer"] < 0.06


def test_failed_work_is_counted():
    clock = Clock()
    with pytest.raises(ValueError, match="no"), clock.measure("work"):
        raise ValueError("no")
    assert clock.seconds["work"] > 0.0
