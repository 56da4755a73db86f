"""Scripts of the report, which the page of the service uses as modules."""

from __future__ import annotations

import pytest

from pipeline.report.html import without_modules


@pytest.mark.parametrize(
    "line",
    [
        'import { a } from "./a.js";\n',
        'import {\n  first,\n  second,\n} from "./a.js";\n',
        'import * as all\n  from "./a.js";\n',
        'import "./a.js";  // for its effect\n',
        'import{a}from"./a.js";\n',
    ],
)
def test_imports_are_removed(line):
    rest = "const a = 1;\nexport function b() {\n  return a;\n}\n"
    assert without_modules(line + line + rest) == rest.replace("export ", "")


@pytest.mark.parametrize(
    "source",
    [
        'import("./a.js").then(start);\n',
        "import.meta.url;\n",
        "important();\nb = 1;\n",
        "/* We\n import nothing; */\nstart();\n",
    ],
)
def test_everything_else_is_kept(source):
    assert without_modules(source) == source
