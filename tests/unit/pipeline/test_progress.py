"""The bar on a terminal: how much, how fast, how long."""

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


def shown(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_the_bar_counts_in_the_units_that_it_is_told(terminal, capsys):
    with on_stderr(None, False, "batches") as progress:
        progress.expect("epoch 2 of 3, cpu: pictures", 240, 80, 16)
        for _ in range(5):
            progress.advance()
    text = shown(capsys.readouterr().err)
    assert "epoch 2 of 3, cpu: pictures" in text
    assert "160/240" in text
    assert re.search(r"\d+\.\d/s", text)


def test_nothing_is_shown_where_nobody_sees_it(capsys):
    with on_stderr(3, False) as progress:
        progress.expect("pictures", 3, 0, 1)
        progress.advance()
    assert isinstance(progress, Silent)
    assert capsys.readouterr().err == ""


def test_notes_have_no_word_in_front_and_warnings_do(capsys):
    logger = logging.getLogger("stages.test")
    logging_setup.configure(logging.INFO)
    logger.info("a note")
    logger.warning("mind")
    logging_setup.configure(logging.WARNING)
    logger.info("not shown")
    assert capsys.readouterr().err == "a note\nwarning: mind\n"
