"""Links, reference page and commands of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from docs_commands import PAGES, ROOT, shown_commands
from reference import PAGE, SETTINGS, keys, reference

from pipeline.cli import main

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, in GitHub's format."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_existing_files_and_headings(page):
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "//" not in link]
    for link in links:
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_readme_is_short_and_links_every_page():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 200
    for page in PAGES[1:]:
        assert f"(docs/{page.name})" in readme


def test_reference_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == reference(), "run `make reference`"


@pytest.mark.parametrize("title", SETTINGS)
def test_every_setting_is_described(title):
    assert [key for key, _, meaning in keys(SETTINGS[title][1]) if not meaning] == []


@pytest.mark.parametrize(
    ("page", "command_line"), shown_commands(), ids=lambda value: str(value)[:60]
)
def test_documented_options_exist(page, command_line):
    command: click.Command | None = main
    context = click.Context(main, info_name="fxpipe")
    arguments = list(command_line[1:])
    while isinstance(command, click.Group):
        assert arguments, f"{page}: {' '.join(command_line)}"
        command = command.get_command(context, arguments.pop(0))
    assert command is not None, f"{page}: {' '.join(command_line)}: not a command"
    command.make_parser(click.Context(command)).parse_args(arguments)  # raises on an unknown option
