"""Seconds by kind of work: nested work counts once, threads add up."""

from __future__ import annotations

import threading
import time

import pytest

from pipeline.timing import Clock


def test_inner_work_is_not_counted_for_the_outer():
    clock = Clock()
    with clock.measure("outer"):
        time.sleep(0.02)
        with clock.measure("inner"):
            time.sleep(0.06)
        with clock.measure("inner"):
            time.sleep(0.02)
    assert clock.seconds["inner"] >= 0.08
    assert 0.02 <= clock.seconds["outer"] < clock.seconds["inner"]


def test_threads_add_up_and_do_not_mix():
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


def test_work_that_fails_counts_too():
    clock = Clock()
    with pytest.raises(ValueError, match="no"), clock.measure("work"):
        raise ValueError("no")
    assert clock.seconds["work"] > 0.0
