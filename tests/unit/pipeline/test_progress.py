"""The progress bar on a terminal, and log messages."""

from __future__ import annotations

import logging
import re

import pytest

from pipeline import logging_setup
from pipeline.progress import Silent, on_stderr


@pytest.fixture
def terminal(monkeypatch):
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "120"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)


def without_escapes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_bar_shows_count_and_speed(terminal, capsys):
    with on_stderr(None, False, "batches") as progress:
        progress.expect("epoch 2 of 3, cpu: pictures", 240, 80, 16)
        for _ in range(5):
            progress.advance()
    text = without_escapes(capsys.readouterr().err)
    assert "epoch 2 of 3, cpu: pictures" in text
    assert "160/240" in text
    assert re.search(r"\d+\.\d/s", text)


def test_no_bar_without_a_terminal(capsys):
    with on_stderr(3, False) as progress:
        progress.expect("pictures", 3, 0, 1)
        progress.advance()
    assert isinstance(progress, Silent)
    assert capsys.readouterr().err == ""


def test_warnings_have_a_prefix_and_notes_have_none(capsys):
    logger = logging.getLogger("stages.test")
    logging_setup.configure(logging.INFO)
    logger.info("a note")
    logger.warning("a warning")
    logging_setup.configure(logging.WARNING)
    logger.info("not shown")
    assert capsys.readouterr().err == "a note\nwarning: a warning\n"
