"""The commands in the documentation run as shown, if their input is in the repository."""

from __future__ import annotations

import itertools
import shutil

import pytest
from click.testing import CliRunner
from docs_commands import ROOT, shown_commands

from pipeline.cli import main

SAMPLES = ("IM000001.dcm", "IMG0000049.jpg")
FOLDERS = ("export", "monday", "tuesday", "samples")
RUNNABLE = ("run", "doctor", "schema", "weights")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder like that of a user: pictures, the weights and a table of studies."""
    home = tmp_path_factory.mktemp("user")
    for name in FOLDERS:
        (home / name).mkdir()
        for sample in SAMPLES:
            shutil.copy(ROOT / "samples" / sample, home / name)
    shutil.copytree(ROOT / "configs", home / "configs")
    (home / "weights").symlink_to(ROOT / "weights")
    (home / "known.csv").write_text("path,study\nIMG0000049.jpg,1\n", encoding="utf-8")
    return home


def runnable(words: tuple[str, ...]) -> bool:
    """Whether the folder has the input of a command that runs on the CPU."""
    options = dict(itertools.pairwise(words))
    inputs = [
        options[option].rstrip("/") for option in ("--input", "--weights") if option in options
    ]
    return (
        words[1] in RUNNABLE
        and words[2:3] not in (("install",), ("pack",))
        and set(inputs) <= {*FOLDERS, "weights"}
        and options.get("--device", "cpu") == "cpu"
        and "--plan" not in options  # see test_archives_page
    )


def test_documented_commands_run(folder, monkeypatch):
    monkeypatch.chdir(folder)
    commands = [words for _, words in shown_commands() if runnable(words)]
    assert len(commands) > 15
    for words in dict.fromkeys(commands):
        shutil.rmtree("results", ignore_errors=True)
        result = CliRunner().invoke(main, list(words[1:]), catch_exceptions=False)
        assert result.exit_code == 0, f"{' '.join(words)}\n{result.output}"


def test_archives_page(folder, monkeypatch):
    """The commands of the page in their order, but for those of clusters."""
    monkeypatch.chdir(folder)
    commands = [words for page, words in shown_commands() if page == "archives.md"]
    here = [
        words for words in commands if "--plan" in words or words[1] == "plan"
        if not {"--engine", ">"} & set(words)
    ]  # fmt: skip
    assert [words[1] for words in here] == ["plan", "run", "run", "merge", "merge"]
    for words in here:
        result = CliRunner().invoke(main, list(words[1:]), catch_exceptions=False)
        assert result.exit_code == 0, f"{' '.join(words)}\n{result.output}"
    assert len((folder / "results/results.csv").read_text().splitlines()) == 1 + len(SAMPLES)
