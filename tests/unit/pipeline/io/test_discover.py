"""The walk of the input: every file, in an order that does not depend on the system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.errors import InputMissingError, UnreadableImageError
from pipeline.io import discover, read_file


def _tree(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def _names(root: Path, exclude: Path | None = None) -> list[str]:
    return [path.relative_to(root).as_posix() for path in discover(root, exclude)]


def test_files_are_sorted_by_name_within_folders(tmp_path: Path) -> None:
    _tree(tmp_path, "b/2.png", "b/10.png", "a.png", "c.png", "B.png")
    assert _names(tmp_path) == ["B.png", "a.png", "b/10.png", "b/2.png", "c.png"]


def test_hidden_files_and_other_files_are_included(tmp_path: Path) -> None:
    _tree(tmp_path, ".hidden", "README.md", ".folder/x.dcm")
    assert _names(tmp_path) == [".folder/x.dcm", ".hidden", "README.md"]


def test_single_file(tmp_path: Path) -> None:
    _tree(tmp_path, "one.png")
    assert list(discover(tmp_path / "one.png")) == [tmp_path / "one.png"]


def test_output_folder_is_skipped_in_any_notation(tmp_path: Path) -> None:
    _tree(tmp_path, "a.png", "out/b.png", "output/c.png")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    assert _names(tmp_path, tmp_path / "link") == ["a.png", "output/c.png"]
    assert _names(tmp_path, tmp_path / "output" / ".." / "out") == ["a.png", "output/c.png"]


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path: Path) -> None:
    _tree(tmp_path, "real/a.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "z.png").symlink_to(tmp_path / "real" / "a.png")
    assert _names(tmp_path) == ["real/a.png", "z.png"]


def test_broken_link_is_listed_and_fails_when_read(tmp_path: Path) -> None:
    (tmp_path / "missing.png").symlink_to(tmp_path / "nowhere")
    (path,) = discover(tmp_path)
    with pytest.raises(UnreadableImageError, match=r"missing\.png: cannot read .*No such file"):
        read_file(path)


def test_pipe_is_listed_and_not_opened(tmp_path: Path) -> None:
    _tree(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe")
    assert _names(tmp_path) == ["a.png", "pipe"]
    with pytest.raises(UnreadableImageError, match="pipe"):
        read_file(tmp_path / "pipe")


def test_folder_that_cannot_be_listed_fails_when_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tree(tmp_path, "a.png", "locked/b.png")
    scandir = os.scandir

    def refuse(path: Path) -> object:  # the tests may run as root, which ignores modes
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert _names(tmp_path) == ["a.png", "locked"]
    with pytest.raises(UnreadableImageError, match="folder that cannot be listed"):
        read_file(tmp_path / "locked")


def test_missing_root_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="not found"):
        discover(tmp_path / "typo")


def test_tree_without_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputMissingError, match="without files"):
        list(discover(tmp_path))


def test_folder_is_listed_only_when_the_walk_reaches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tree(tmp_path, "a/1.png", "b/2.png")
    listed: list[str] = []
    scandir = os.scandir

    def spy(path: Path) -> object:
        listed.append(Path(path).name)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", spy)
    walk = discover(tmp_path)
    next(walk)
    assert "b" not in listed


def test_nesting_above_the_recursion_limit(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(1200):
        deep /= "d"
        deep.mkdir()
    (deep / "x.png").write_bytes(b"x")
    try:
        assert len(list(discover(tmp_path))) == 1
    finally:  # pytest removes folders recursively, which would fail here
        (deep / "x.png").unlink()
        while deep != tmp_path:
            deep.rmdir()
            deep = deep.parent


def test_read_file_gives_content_and_digest(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    content, digest = read_file(tmp_path / "abc")
    assert content == b"abc"
    assert digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
