"""Listing and checking of picture files."""

from __future__ import annotations

import logging

from layouts import cut, draw

from stages.data.adapters.pictures import look_at, walk


def test_broken_files_are_flagged_by_the_kind_of_fault(tmp_path):
    whole = draw(tmp_path / "whole.jpg", 1)
    assert look_at(whole).flag == ""
    half = cut(draw(tmp_path / "half.jpg", 2))
    assert look_at(half).flag == "truncated"
    # The flag must not depend on the name.
    (tmp_path / "truncated.jpg").write_bytes(b"no picture at all")
    assert look_at(tmp_path / "truncated.jpg").flag == "unreadable"
    (tmp_path / "read me.txt").write_text("hello")
    assert look_at(tmp_path / "read me.txt").flag == "not_a_picture"
    assert look_at(tmp_path / "absent.jpg").sha256 == ""


def test_hidden_files_are_skipped_and_counted(tmp_path, caplog):
    draw(tmp_path / "a.png", 1)
    for name in ("._a.png", ".DS_Store", "Thumbs.db", "__MACOSX/b.png", ".git/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with caplog.at_level(logging.INFO, "stages"):
        assert [path.name for path in walk(tmp_path)] == ["a.png"]
    assert [r.getMessage() for r in caplog.records] == [f"{tmp_path}: 5 hidden files were skipped"]
