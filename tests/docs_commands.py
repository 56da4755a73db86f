"""The commands in the documentation."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def shown_commands() -> list[tuple[str, tuple[str, ...]]]:
    """Page and arguments of every command line that starts with ``fxpipe``."""
    return [
        (page.name, tuple(words))
        for page in PAGES
        for language, block in _BLOCK.findall(page.read_text(encoding="utf-8"))
        if language in ("", "sh", "console")
        for line in block.replace("\\\n", " ").splitlines()
        for part in line.removeprefix("$ ").split(" && ")
        if (words := shlex.split(part, comments=True))[:1] == ["fxpipe"]
    ]
