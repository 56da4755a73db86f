"""Counts idioms in the prose of the project: ``python tests/plain_english.py [FOLDER ...]``.

Prose is docstrings, comments, texts, long function names, Markdown, and the text of notebooks.
"""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
_IDIOMS = re.compile(
    r"\b("
    r"whoever|whatever|somebody|someone|nobody|told|tells|beside|besides|for want of|"
    r"so many|goes on|go on|is no [a-z]+|are no [a-z]+|says? so|say of|said of|"
    r"is said|was said|speaks? of|knows? of|be told|what is there|that is there|"
    r"is there for|at hand|by itself|of its own|of their own|on its own|as if|"
    r"let alone|makes? up|comes? of|come to|came to|for good|at all|in words|honest|"
    r"promise[sd]?|mend(?:ed|s)?|spared?|lent|borrowed|stranger[s]?|"
    r"neighbour(?:ing)? of|asks? for an answer|answers? for|looked at|looks? at|"
    r"stands? (?:for|in|behind|beside)|hold(?:s|ing)? good|holds? back|in place of|"
    r"one by one|as it were|put right|does its worst|no more than|not one|nothing of|"
    r"none of its|its own|their own|what becomes|what follows|what .{1,20} is worth|"
    r"worth|said|shall|thereby|whose|otherwise than|but for|save for|lies? (?:in|on|"
    r"below|above)|fits? together|go(?:es)? with|bring(?:s)? with|such as these|"
    r"now and then|once more|any more|anew|ask(?:s|ed)? (?:about|for)|"
    r"learn(?:t)? by heart|by hand|left out|leave[s]? out|left over"
    r")\b",
    re.IGNORECASE,
)


def prose(path: Path) -> str:
    """The text of a file that people read."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return "\n".join(_parts(text))
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return text


def _parts(text: str) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.value
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.count("_") > 2:
            yield node.name.replace("_", " ")


def count(folders: tuple[str, ...] = ()) -> tuple[int, int, Counter[str]]:
    """Idioms and words below some folders, or in the whole project, and the idioms by text."""
    listed = subprocess.run(
        ["git", "ls-files", "*.py", "*.md", "*.ipynb"], cwd=ROOT,
        capture_output=True, text=True, check=True,
    ).stdout.split("\n")  # fmt: skip
    found: Counter[str] = Counter()
    words = 0
    for name in filter(None, listed):
        is_generated = name.startswith("weights/") or name == "tests/plain_english.py"
        if is_generated or (folders and not name.startswith(folders)):
            continue
        text = prose(ROOT / name)
        words += len(re.findall("[A-Za-z]+", text))
        found.update(match[1].lower() for match in _IDIOMS.finditer(text))
    return found.total(), words, found


def main() -> None:
    """Print the rate."""
    idioms, words, found = count(tuple(sys.argv[1:]))
    print(f"{1000 * idioms / words:.2f} in 1,000 words ({idioms} of {words})")  # noqa: T201
    print(", ".join(f"{text} {number}" for text, number in found.most_common(20)))  # noqa: T201


if __name__ == "__main__":
    main()
