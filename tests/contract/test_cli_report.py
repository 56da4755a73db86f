"""``fxpipe run --report``: one page that stands by itself, whatever the inputs are called."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from bundles import for_all, paint, write_bundles, write_png
from click.testing import CliRunner, Result
from factories import IDENTIFIERS, PATIENT_ID, dicom, dicom_file

from pipeline import version
from pipeline.cli import main
from pipeline.report.summary import INTENDED_USE

HOSTILE = (
    "</script><script>alert(1)</script>.png",
    "<!--<script>.png",
    '"><img src=x onerror=alert(2)>.png',
    "{{ 7 * 7 }}.png",
    "a\nb\u202egnp.png",
)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A working folder with weights in it."""
    write_bundles(tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FXPIPE_WEIGHTS", raising=False)
    return tmp_path


def fxpipe(*arguments: object) -> Result:
    words = ["run", "--input", "in", "--device", "cpu", *map(str, arguments)]
    return CliRunner().invoke(main, words, catch_exceptions=False)


class Page(HTMLParser):
    """The page as a browser takes it apart: scripts by class or id, and what it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        text = Path("results/report.html").read_text(encoding="utf-8")
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.handlers: list[str] = []
        self.policy = ""
        self.blocks: list[tuple[dict[str, str | None], str]] = []
        self._open = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        found = dict(attrs)
        self.handlers += [name for name in found if name.startswith("on") or name == "style"]
        self.fetched += [v for k, v in attrs if k in {"src", "href", "action"} and v[0] != "#"]
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = str(found["content"])
        if tag in {"script", "style"}:
            self.blocks.append((found, ""))
            self._open = True

    def handle_endtag(self, tag):
        self._open = False

    def handle_data(self, data):
        if self._open:
            attributes, text = self.blocks[-1]
            self.blocks[-1] = attributes, text + data

    @property
    def rows(self) -> list[dict]:
        return [json.loads(text) for a, text in self.blocks if a.get("class") == "row"]

    @property
    def views(self) -> list[bytes]:
        found = [text for a, text in self.blocks if a.get("class") == "view"]
        return [base64.b64decode(text) for text in found]


def test_every_input_has_a_row_and_every_picture_is_in_the_page(place):
    write_png(place / "in/a.png", {"hand": 0.9}, {"hand": 0.9})
    write_png(place / "in/b.png", {"elbow": 0.9, "hand": 0.9}, {"elbow": 0.1, "hand": 0.48})
    write_png(place / "in/knee.png", {})
    (place / "in/cut.png").write_bytes((place / "in/a.png").read_bytes()[:60])
    (place / "in/notes.txt").write_text("this is a letter")
    assert fxpipe("--report").exit_code == 1
    page = Page()
    told = {row["record"]["path"]: row for row in page.rows}
    assert {name: row["answer"] for name, row in told.items()} == {
        "a.png": "positive", "b.png": "uncertain", "cut.png": "failed",
        "knee.png": "unsupported", "notes.txt": "unsupported",
    }  # fmt: skip
    assert {name for name, row in told.items() if "picture" in row} == {
        "a.png", "b.png", "knee.png",
    }  # fmt: skip
    assert all(view.startswith(b"\xff\xd8") for view in page.views)
    assert len(page.views) == 3
    assert "expected" in told["knee.png"]["record"]["error"]
    # Heatmaps of positive and uncertain findings, as if they had been asked for.
    drawn = [("layer" in f, f["verdict"]) for row in page.rows for f in row["findings"]]
    assert sorted(drawn) == [(False, "negative"), (True, "positive"), (True, "uncertain")]
    assert len(list((place / "results/heatmaps").iterdir())) == 2


def test_the_page_fetches_nothing_and_runs_nothing_but_its_own_script(place):
    write_png(place / "in/a.png", {"hand": 0.9}, {"hand": 0.9})
    assert fxpipe("--report").exit_code == 0
    page = Page()
    assert page.fetched == []
    assert page.handlers == []
    assert not {"link", "iframe", "object", "embed", "base"} & set(page.tags)
    (style,) = [text for a, text in page.blocks if not a and ":root" in text]
    (script,) = [text for a, text in page.blocks if not a and ":root" not in text]
    assert "@import" not in style
    assert "url(" not in style.replace("url(#window)", "")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = dict(rule.split(" ", 1) for rule in page.policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert rules["img-src"] == "data:"


def test_hostile_names_stay_text(place):
    for i, name in enumerate(HOSTILE):
        try:
            write_png(place / f"in/{i}" / name, {"hand": 0.9}, {"hand": 0.9})
        except OSError:
            pytest.skip("this file system has no such names")
    assert fxpipe("--report").exit_code == 0
    page = Page()
    plain = [name.replace("\n", "\\n").replace("\u202e", "\\u202e") for name in HOSTILE]
    found = [row["record"]["path"] for row in page.rows]
    assert sorted(found) == sorted(f"{i}/{name}" for i, name in enumerate(plain))
    text = Path("results/report.html").read_text(encoding="utf-8")
    assert "alert(1)" in text
    assert not any(start in text for start in ("<script>alert", "<!--", "<img src=x", "\u202e"))
    assert page.tags.count("img") == 1  # the viewer's own
    assert len([a for a, _ in page.blocks if not a]) == 2  # the style and the script


def test_nobody_is_named_unless_it_is_asked_for(place):
    folder = place / "in"
    folder.mkdir()
    pixels = paint({"hand": 0.9}, {"hand": 0.9}).astype(np.uint16)
    (folder / "a.dcm").write_bytes(dicom_file(dicom(pixels, bits=8, ViewPosition="PA")))
    assert fxpipe("--report").exit_code == 0
    text = Path("results/report.html").read_text(encoding="utf-8")
    assert [word for word in (*IDENTIFIERS, "2.25.100") if word in text] == []
    assert Page().rows[0]["header"]["ViewPosition"] == "PA"
    assert fxpipe("--report", "--identifiers", "keep").exit_code == 0
    assert Page().rows[0]["identity"]["PatientID"] == PATIENT_ID
    text = Path("results/report.html").read_text(encoding="utf-8")
    assert "this page contains patient names" in text


def test_the_page_says_where_its_answers_come_from(place):
    write_png(place / "in/a.png", {"hand": 0.9}, {"hand": 0.9})
    assert fxpipe("--report", "--operating-point", "specific", "--batch-size", 3).exit_code == 0
    text = Path("results/report.html").read_text(encoding="utf-8")
    manifest = json.loads((place / "weights/manifest.json").read_text())
    for bundle in manifest["bundles"]:
        assert bundle["sha256"] in text
    words = re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", text))
    assert INTENDED_USE in words
    assert f"fxpipe {version()}" in words
    assert "specific: test 0.950 – unknown (painted)" in words
    assert "batch_size 3" in words
    assert "heatmaps positive" in words
    assert re.search(r"Started \d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d", words)
    (end,) = [json.loads(text) for a, text in Page().blocks if a.get("id") == "end"]
    assert end["count"] == 1


def test_heatmaps_that_were_asked_for_otherwise(place):
    write_png(place / "in/a.png", {"hand": 0.9}, {"hand": 0.9})
    assert fxpipe("--report", "--heatmaps", "none").exit_code == 0
    assert not any("layer" in finding for finding in Page().rows[0]["findings"])
    assert len(Page().views) == 1
    assert not (place / "results/heatmaps").exists()


def test_without_it_there_is_no_page(place):
    write_png(place / "in/a.png", {"hand": 0.9}, {"hand": 0.9})
    assert fxpipe().exit_code == 0
    assert sorted(p.name for p in (place / "results").iterdir()) == ["results.csv", "results.jsonl"]


def test_one_specialist_for_all_regions(place):
    write_bundles(place / "for-all", for_all())
    write_png(place / "in/a.png", {}, {"all": 0.9})
    assert fxpipe("--report", "--weights", "for-all").exit_code == 0
    assert [f["region"] for f in Page().rows[0]["findings"]] == ["all"]
    text = Path("results/report.html").read_text(encoding="utf-8")
    assert "any region" in text
    assert "No region stage" in text
