"""Resume: which part of an unfinished run is kept for the files as they are now."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.domain import ImageRef
from pipeline.errors import ImageError
from pipeline.io import read_file
from pipeline.outcome import FractureCall, OperatingPoint, Outcome, Status
from pipeline.outcome_json import to_json
from pipeline.report.resume import Done, Kept, keep
from pipeline.report.stream import BEGINNING, Mark

NAMES = ("a.png", "b.png", "c.png", "d.png")
TABLE = "results.csv"


class Run:
    """An unfinished run over the files of a folder, of which one was not reached.

    Attributes:
        root: The input folder, with a file of each name.
        output: The output folder, with a table of one row for each outcome.
        entries: Journal entries with their marks, without that of the last file.
    """

    def __init__(self, folder: Path, names: Sequence[str] = NAMES, frames: int = 1) -> None:
        self.root, self.output = folder / "in", folder / "out"
        for place in (self.root, self.output):
            place.mkdir()
        for name in names:
            (self.root / name).write_bytes(name.encode())
        self.frames = frames
        self.entries = []
        content = b"path\n"
        for number, name in enumerate(names[:-1], 1):
            start = len(content), zlib.crc32(content)
            content += f"{name}\n".encode() * frames
            self.entries.append(
                (
                    {
                        "path": name,
                        "outcomes": [to_json(one) for one in self.outcomes(name)],
                        "outputs": {TABLE: [*start, len(content), zlib.crc32(content)]},
                        "heatmaps": [],
                        "notes": [{"report.html": number}] * frames,
                    },
                    Mark(100 * number, number, number),
                )
            )
        (self.output / TABLE).write_bytes(content)

    def outcomes(self, name: str) -> list[Outcome]:
        """The outcomes of a file: one for each frame."""
        digest = hashlib.sha256(name.encode()).hexdigest()
        call = FractureCall("hand", "fracture", 1 / 3, OperatingPoint("balanced", 0.5, 0.3))
        return [
            Outcome(ImageRef(self.root / name, frame, digest), Status.OK, findings=(call,))
            for frame in ([None] if self.frames == 1 else range(self.frames))
        ]

    def resume(self, names: Sequence[str] = NAMES) -> tuple[Kept, list[Done], list[str]]:
        """What is kept, the files that were taken, and the names of the remaining files."""
        kept = Kept(BEGINNING)
        done: list[Done] = []
        paths = iter([self.root / name for name in names])
        rest = keep(iter(self.entries), paths, self.output, self.root, 2, done.append, kept)
        return kept, done, [path.relative_to(self.root).as_posix() for path in rest]


def test_all_files_of_the_journal_are_kept(tmp_path):
    run = Run(tmp_path)
    kept, done, rest = run.resume()
    assert rest == ["d.png"]
    assert (kept.rows, kept.broken, kept.journal) == (3, "", Mark(300, 3, 3))
    content = (run.output / TABLE).read_bytes()
    assert kept.outputs == {TABLE: Mark(len(content), zlib.crc32(content), 3)}
    assert [one.path.name for one in done] == ["a.png", "b.png", "c.png"]
    assert [list(one.outcomes) for one in done] == [run.outcomes(name) for name in NAMES[:-1]]
    assert [one.notes for one in done] == [({"report.html": number},) for number in (1, 2, 3)]


def test_rows_of_all_frames_are_kept(tmp_path):
    kept, done, rest = Run(tmp_path, frames=3).resume()
    assert (kept.rows, kept.outputs[TABLE].rows) == (9, 9)
    assert [len(one.outcomes) for one in done] == [3, 3, 3]
    assert rest == ["d.png"]


def test_nothing_is_kept_without_entries(tmp_path):
    run = Run(tmp_path)
    run.entries = []
    kept, done, rest = run.resume()
    assert (kept, done, rest) == (Kept(BEGINNING), [], list(NAMES))


def change_content(run: Run) -> None:
    (run.root / "b.png").write_bytes(b"B.png")


def make_pipe(run: Run) -> None:
    (run.root / "b.png").unlink()
    os.mkfifo(run.root / "b.png")


def delete(run: Run) -> None:
    (run.root / "b.png").unlink()


def truncate_table(run: Run) -> None:
    os.truncate(run.output / TABLE, len("path\na.png\nb.p"))


def change_table(run: Run) -> None:
    content = (run.output / TABLE).read_bytes()
    (run.output / TABLE).write_bytes(content.replace(b"b.png", b"B.png"))


def require_heatmap(run: Run) -> None:
    run.entries[1][0]["heatmaps"] = ["heatmaps/b.png"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_content, "b.png"),
        (make_pipe, "b.png"),
        (delete, "b.png"),
        (truncate_table, TABLE),
        (change_table, TABLE),
        (require_heatmap, "heatmaps/b.png"),
    ],
)
def test_files_from_the_first_change_on_are_done_again(tmp_path, change, reason):
    run = Run(tmp_path)
    change(run)
    kept, done, rest = run.resume()
    assert rest == ["b.png", "c.png", "d.png"]
    assert (kept.rows, kept.journal) == (1, Mark(100, 1, 1))
    assert kept.outputs[TABLE].size == len("path\na.png\n")
    assert [one.path.name for one in done] == ["a.png"]
    assert reason in kept.broken


def test_missing_table_keeps_nothing(tmp_path):
    run = Run(tmp_path)
    (run.output / TABLE).unlink()
    kept, done, rest = run.resume()
    assert (kept.rows, kept.outputs, done, rest) == (0, {}, [], list(NAMES))
    assert TABLE in kept.broken


def test_existing_heatmaps_are_kept(tmp_path):
    run = Run(tmp_path)
    require_heatmap(run)
    (run.output / "heatmaps").mkdir()
    (run.output / "heatmaps/b.png").write_bytes(b"x")
    assert run.resume()[0].rows == 3


@pytest.mark.parametrize(
    ("names", "kept_names"),
    [
        (["a.png", "aa.png", "b.png", "c.png", "d.png"], ["a.png"]),
        (["b.png", "c.png", "d.png"], []),
        (["a.png", "c.png", "d.png"], ["a.png"]),
        (["a.png", "b.png"], ["a.png", "b.png"]),
        ([], []),
    ],
    ids=["new file", "first is missing", "second is missing", "only the last are missing", "empty"],
)
def test_new_and_missing_files_of_the_walk(tmp_path, names, kept_names):
    run = Run(tmp_path)
    (run.root / "aa.png").write_bytes(b"new")
    kept, done, rest = run.resume(names)
    assert [one.path.name for one in done] == kept_names
    assert kept.rows == len(kept_names)
    assert rest == names[len(kept_names) :]


def read_error(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_file(path)
    return str(caught.value)


@pytest.mark.parametrize("readable", [False, True])
def test_file_that_could_not_be_read_is_kept_only_with_the_same_error(tmp_path, readable):
    run = Run(tmp_path)
    path = run.root / "a.png"
    path.unlink()
    failed = Outcome(ImageRef(path), Status.FAILED, error=read_error(path))
    run.entries[0][0]["outcomes"] = [to_json(failed)]
    if readable:
        path.write_bytes(b"x")
    kept, done, _ = run.resume()
    assert kept.rows == (0 if readable else 3)
    assert [one.outcomes for one in done[:1]] == ([] if readable else [(failed,)])


def test_large_outputs_are_checked_in_full(tmp_path):
    """The check reads an output in pieces of 1 MiB."""
    run = Run(tmp_path, ["a.png", "b.png"])
    entry, _ = run.entries[0]
    content = bytearray(bytes(range(256)) * (3 * 2**20 // 256) + b"end")
    (run.output / TABLE).write_bytes(content)
    entry["outputs"] = {TABLE: [0, 0, len(content), zlib.crc32(content)]}
    assert run.resume(["a.png", "b.png"])[0].rows == 1
    content[-1] ^= 1
    (run.output / TABLE).write_bytes(content)
    assert run.resume(["a.png", "b.png"])[0].rows == 0
