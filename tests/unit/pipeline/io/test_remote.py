"""Local copies of remote files."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.domain import ImageRef
from pipeline.io.limits import MAX_FILE_BYTES
from pipeline.io.remote import Fetched, RemoteFile, RemoteFolder
from pipeline.io.remote_url import is_url
from pipeline.outcome import Outcome, Status


class Folder(RemoteFolder):
    """A remote folder whose files contain their names."""

    parts = ("x", "..", "study1")

    def __init__(self, *names: str, size: int | None = None) -> None:
        self.url, self.names, self.size = "test://x/study1", names, size
        self.fetched: list[str] = []

    def files(self):
        return (RemoteFile(name, self.size) for name in self.names)

    def fetch(self, file: RemoteFile, target: Path) -> None:
        self.fetched.append(file.name)
        target.write_text(file.name)


def judged(path: Path) -> Outcome:
    return Outcome(ImageRef(path), Status.FAILED, error="x")


def on_disk(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_copies_are_fetched_ahead_and_removed(tmp_path):
    remote = Folder(*(f"{n // 3}/{n}.png" for n in range(9)))
    fetched = Fetched(remote, tmp_path, ahead=3, threads=1)
    seen = []
    for path in fetched.paths():
        seen.append(path.relative_to(fetched.root).as_posix())
        assert path.read_text() == seen[-1]
        fetched.write(judged(path))
        assert len(on_disk(tmp_path)) <= 5
    assert seen == list(remote.names)
    assert on_disk(tmp_path) == {"8.png"}
    assert not (fetched.root / "0").exists()


def test_names_cannot_lead_out_of_the_folder(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    names = ("../../a.png", "b/../../../c.png", "/d.png", "e/./f.png", "g//h.png")
    fetched = Fetched(Folder(*names), folder, 2, 2)
    paths = list(fetched.paths())
    assert all(path.resolve().is_relative_to(fetched.root.resolve()) for path in paths)
    assert fetched.root.is_relative_to(folder)
    assert [path.read_text() for path in paths] == list(names)


def test_files_that_are_too_large_are_not_fetched(tmp_path):
    remote = Folder("a.zip", size=MAX_FILE_BYTES + 1)
    (path,) = Fetched(remote, tmp_path, 2, 2).paths()
    assert path.stat().st_size == MAX_FILE_BYTES + 1
    assert remote.fetched == []


def test_all_frames_of_a_file_are_written_before_it_is_removed(tmp_path):
    fetched = Fetched(Folder("a.dcm", "b.dcm"), tmp_path, 2, 1)
    first, second = fetched.paths()
    fetched.write(judged(first))
    fetched.write(judged(first))
    assert first.exists()
    fetched.write(judged(second))
    assert not first.exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("s3://bucket/x", True), ("memory://x", True), ("C:\\x", False), ("x/y", False),
     ("s3:/x", False), ("s3://", False)],
)  # fmt: skip
def test_urls_are_recognised(text, expected):
    assert is_url(text) is expected
