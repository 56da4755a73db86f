"""The files of the page: caching, imports, texts, forbidden content."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import httpx
import pytest

from pipeline.report.page_row import URGENCY
from pipeline.report.summary import INTENDED_USE
from pipeline.service.api import models
from pipeline.service.api.page import _OF_REPORT, _files

PAGE = Path(__file__).parents[3] / "pipeline/service/page"
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in PAGE.glob("*.js")}
TEXTS = json.loads((PAGE / "texts.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("path", "media"),
    [
        ("", "text/html"), ("static/main.js", "text/javascript"), ("static/style.css", "text/css"),
        ("static/dom.js", "text/javascript"), ("static/texts.json", "application/json"),
        ("static/facts.json", "application/json"), ("static/icon.svg", "image/svg+xml"),
    ],
)  # fmt: skip
def test_files_are_public_and_cached_until_changed(served, path, media):
    answer = httpx.get(served.address + path)
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, media)
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.content
    again = httpx.get(served.address + path, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    ["static/index.html", "static/none.js", "static/..%2fschema.py", "static/%2e%2e/app.py"],
)
def test_no_other_files_are_served(served, path):
    assert httpx.get(served.address + path).status_code == 404


def test_every_file_that_a_module_imports_is_served():
    names = set(_files())
    for source in (*SCRIPTS.values(), *(_files()[name].content.decode() for name in _OF_REPORT)):
        assert set(re.findall(r'from "\./([^"]+)"', source)) <= names


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_scripts_create_no_markup_from_text(name):
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc"
    )
    assert not re.search(forbidden, SCRIPTS[name])
    assert len(SCRIPTS[name].splitlines()) < 400


def test_page_has_no_inline_script_or_style():
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", html)


def test_texts_are_complete_and_all_used():
    used, patterns = set(), []
    for source in SCRIPTS.values():
        used |= set(re.findall(r'"([a-z]+(?:\.[\w]+)+)"', source))
        patterns += [
            re.sub(r"\\\$\\{[^}]*\\}", r"\\w+", re.escape(key))
            for key in re.findall(r"\bt\(`([a-z][^`]+)`", source)
        ]
        patterns += [rf"{group}\.\w+" for group in re.findall(r'\bword(?:s)?\("(\w+)"', source)]
        patterns += [
            rf"{re.escape(key)}\.(one|other)" for key in re.findall(r'count\("([\w.]+)"', source)
        ]
        called = re.findall(r'\bt\(\s*"([\w.]+)"', source)
        assert set(called) <= set(TEXTS)
    patterns += [
        rf"{section}\.({'|'.join(re.findall(r'[a-z]+', names))})"
        for source in SCRIPTS.values()
        for section, names in re.findall(r'columnsOf\(\s*"(\w+)",\s*\[([^\]]+)\]', source)
    ]
    unused = {
        key for key in set(TEXTS) - used if not any(re.fullmatch(one, key) for one in patterns)
    }
    assert unused == set()


def test_values_of_the_service_have_texts():
    assert TEXTS["page.intended"] == INTENDED_USE
    for answer in URGENCY:
        assert f"answer.{answer}" in TEXTS
    for group, names in (("state", models.State), ("role", models.Role)):
        for name in get_args(names):
            assert f"{group}.{name}" in TEXTS
