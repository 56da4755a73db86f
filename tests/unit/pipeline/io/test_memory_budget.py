"""The memory budget: limits, waiting, and release in every case."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import factories
import numpy as np
import pytest

from pipeline.errors import UnreadableImageError
from pipeline.io import MemoryBudget, decode
from pipeline.source import NamedBytes

_PIXELS = factories.ramp(20, 30, 0, 255, np.uint8)
_PAGES = factories.dicom_file(factories.dicom(np.stack([_PIXELS] * 3)))
_PNG = factories.raster(_PIXELS, "PNG")


def is_free(room: MemoryBudget, pixels: int) -> bool:
    """Whether another thread can reserve this many pixels without waiting."""
    taken = threading.Event()

    def take() -> None:
        with room.for_picture(pixels):
            taken.set()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    return taken.wait(0.1)


@pytest.mark.parametrize("requests", [[7] * 30, [1, 2, 9, 50] * 8])
def test_budget_is_not_exceeded_and_a_larger_request_runs_alone(requests):
    room, held, totals, alone = MemoryBudget(20), [], [], []

    def work(pixels: int) -> None:
        with room.for_picture(pixels):
            held.append(pixels)
            totals.append(sum(min(p, 20) for p in held))
            alone.append(pixels <= 20 or len(held) == 1)
            time.sleep(0.001)
            held.remove(pixels)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, requests))
    assert max(totals) <= 20
    assert all(alone)


def test_file_is_counted_by_its_size_and_a_missing_one_as_zero(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 100)
    room = MemoryBudget(30)  # 120 bytes
    entered = threading.Event()

    def second() -> None:
        with room.for_file(tmp_path / "a"):
            entered.set()

    with room.for_file(tmp_path / "a"), room.for_file(tmp_path / "missing"):
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.1)
    thread.join(5.0)
    assert entered.is_set()


def test_content_in_memory_is_counted_by_its_size():
    room = MemoryBudget(30)  # 120 bytes
    entered = threading.Event()

    def second() -> None:
        with room.for_file(NamedBytes("b", bytes(100))):
            entered.set()

    with room.for_file(NamedBytes("a", bytes(100))):
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.1)
    thread.join(5.0)
    assert entered.is_set()


@pytest.mark.parametrize("content", [_PNG, _PAGES], ids=["PNG", "DICOM"])
def test_picture_is_counted_until_the_next_one_or_the_end(content):
    room = MemoryBudget(600)
    for _ in decode(content, Path("x"), "", room):
        assert not is_free(room, 1)
    assert is_free(room, 600)


@pytest.mark.parametrize("content", [_PNG, _PAGES], ids=["PNG", "DICOM"])
def test_closing_releases_the_budget(content):
    room = MemoryBudget(600)
    with closing(decode(content, Path("x"), "", room)) as images:
        next(images)
        assert not is_free(room, 1)
    assert is_free(room, 600)


@pytest.mark.parametrize("content", [_PNG[:-60], _PAGES[:-900]], ids=["PNG", "DICOM"])
def test_damaged_picture_releases_the_budget(content):
    room = MemoryBudget(600)
    with pytest.raises(UnreadableImageError):
        list(decode(content, Path("x"), "", room))
    assert is_free(room, 600)


def test_default_budget_permits_two_open_files():
    pairs = zip(decode(_PAGES, Path("a"), ""), decode(_PAGES, Path("b"), ""), strict=True)
    assert len(list(pairs)) == 3
