"""Plans: their chunks and shards, and the memory that they need."""

from __future__ import annotations

import os
import tracemalloc
from itertools import repeat
from pathlib import Path

import pytest

from pipeline.archive.merge import ranges
from pipeline.archive.plan import Plan, open_plan, write_plan
from pipeline.errors import InputMissingError, UsageError


def planned(folder: Path, count: int, chunk_files: int = 4) -> Plan:
    """A plan of files that need not exist."""
    paths = (folder / f"{number // 1000}/{number}.png" for number in range(count))
    return write_plan(folder.with_name("plan.sqlite"), folder, paths, chunk_files)


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_chunks_contain_every_file_once_in_order(folder, count):
    plan = planned(folder, count)
    files = [one for number in range(plan.chunks) for one in plan.chunk(number)]
    assert [one.path.name for one in files] == [f"{n}.png" for n in range(count)]
    assert {len(plan.chunk(number)) for number in range(plan.chunks - 1)} <= {4}
    assert plan.files_of(range(plan.chunks)) == count
    with pytest.raises(ValueError, match=f"expected 0 to {plan.chunks - 1}"):
        plan.chunk(plan.chunks)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
def test_shards_contain_every_chunk_once_and_differ_by_one(folder, count):
    plan = planned(folder, 90)
    shards = [plan.shard(number, count) for number in range(1, count + 1)]
    assert [number for shard in shards for number in shard] == list(range(plan.chunks))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_names_are_bytes_and_states_are_those_of_the_files(folder):
    name = os.fsdecode(b"caf\xe9 \\ \n.png")
    (folder / name).write_bytes(b"abc")
    (folder / "link").symlink_to(folder / "missing")
    plan = write_plan(folder.with_name("p"), folder, [folder / name, folder / "link"], 2)
    file, link = plan.chunk(0)
    assert file.path == folder / name
    assert file.state == (3, (folder / name).stat().st_mtime_ns)
    assert link.state is None


def test_digest_depends_on_files_and_chunk_size(folder):
    (folder / "a").write_bytes(b"a")
    paths = [folder / "a"]

    def digest(size: int = 2) -> str:
        return write_plan(folder.with_name("p"), folder, paths, size).digest

    before = digest()
    assert digest() == before
    assert digest(3) != before
    os.utime(folder / "a", ns=(1, 1))
    assert digest() != before


def test_interrupted_plan_leaves_the_earlier_one(folder):
    plan = planned(folder, 5)

    def fail():
        yield folder / "a"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_plan(plan.file, folder, fail(), 2)
    assert open_plan(plan.file) == plan
    assert sorted(path.name for path in plan.file.parent.iterdir()) == ["in", "plan.sqlite"]


def test_missing_folder_is_named(folder):
    plan = planned(folder, 5)
    folder.rmdir()
    with pytest.raises(InputMissingError, match=str(folder)):
        open_plan(plan.file)


def test_table_without_the_facts_of_a_plan_is_refused(folder):
    import sqlite3

    sqlite3.connect(folder / "other").close()
    (folder / "other").write_bytes(b"")
    with pytest.raises(UsageError, match="expected one of `fxpipe plan`"):
        open_plan(folder / "other")


def test_memory_does_not_depend_on_the_number_of_files(folder):
    def peak(count: int) -> int:
        # The same path each time: pathlib interns names, and its table grows in steps.
        paths = repeat(folder / "a.png", count)
        tracemalloc.start()
        write_plan(folder.with_name("plan.sqlite"), folder, paths, 512)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1000)  # caches are filled
    assert peak(40_000) < peak(10_000) + 200_000


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([3], "3"), ([0, 1, 2], "0-2"), ([0, 2, 3, 7], "0,2-3,7"),
     (list(range(0, 40, 2)), "0,2,4,6,8,10,12,14,16,18,…")],
)  # fmt: skip
def test_ranges(numbers, text):
    assert ranges(numbers) == text
