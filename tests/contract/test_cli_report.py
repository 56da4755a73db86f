"""``fxpipe run --report``: one self-contained page, for inputs with any name."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from bundles import for_all, paint, write_png
from click.testing import Result
from command_line import fxpipe
from factories import IDENTIFIERS, PATIENT_ID, dicom, dicom_file
from tiny_networks import write_bundles

from pipeline import version
from pipeline.report.summary import INTENDED_USE

HOSTILE = (
    "</script><script>alert(1)</script>.png",
    "<!--<script>.png",
    '"><img src=x onerror=alert(2)>.png',
    "{{ 7 * 7 }}.png",
    "a\nb\u202egnp.png",
)


def run(*arguments: object) -> Result:
    return fxpipe("run", "--input", "in", "--device", "cpu", *arguments)


class Page(HTMLParser):
    """The parsed page: tags, scripts and styles with their text, and the links it would load."""

    def __init__(self) -> None:
        super().__init__()
        text = Path("results/report.html").read_text(encoding="utf-8")
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.policy = ""
        self.blocks: list[tuple[dict[str, str | None], str]] = []
        self._open = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attributes = dict(attrs)
        self.handlers += [name for name in attributes if name.startswith("on") or name == "style"]
        self.links += [v for k, v in attrs if k in {"src", "href", "action"} and v[0] != "#"]
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = str(attributes["content"])
        if tag in {"script", "style"}:
            self.blocks.append((attributes, ""))
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
        views = [text for a, text in self.blocks if a.get("class") == "view"]
        return [base64.b64decode(text) for text in views]


def test_page_has_every_input_and_every_picture(place):
    write_png(place / "in/a.png", {"hand": 0.9}, {"hand": 0.9})
    write_png(place / "in/b.png", {"elbow": 0.9, "hand": 0.9}, {"elbow": 0.1, "hand": 0.48})
    write_png(place / "in/knee.png", {})
    (place / "in/cut.png").write_bytes((place / "in/a.png").read_bytes()[:60])
    (place / "in/notes.txt").write_text("this is a letter")
    assert run("--report").exit_code == 1
    page = Page()
    by_path = {row["record"]["path"]: row for row in page.rows}
    assert {name: row["answer"] for name, row in by_path.items()} == {
        "a.png": "positive", "b.png": "uncertain", "cut.png": "failed",
        "knee.png": "unsupported", "notes.txt": "unsupported",
    }  # fmt: skip
    assert {name for name, row in by_path.items() if "picture" in row} == {
        "a.png", "b.png", "knee.png",
    }  # fmt: skip
    assert all(view.startswith(b"\xff\xd8") for view in page.views)
    assert len(page.views) == 3
    assert "expected" in by_path["knee.png"]["record"]["error"]
    # Heatmaps of positive and uncertain findings are drawn by default.
    drawn = [("layer" in f, f["verdict"]) for row in page.rows for f in row["findings"]]
    assert sorted(drawn) == [(False, "negative"), (True, "positive"), (True, "uncertain")]
    assert len(list((place / "results/heatmaps").iterdir())) == 2


def test_page_loads_nothing_and_runs_only_its_own_script(place):
    write_png(place / "in/a.png", {"hand": 0.9}, {"hand": 0.9})
    assert run("--report").exit_code == 0
    page = Page()
    assert page.links == []
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


def test_hostile_names_are_shown_as_text(place):
    for i, name in enumerate(HOSTILE):
        try:
            write_png(place / f"in/{i}" / name, {"hand": 0.9}, {"hand": 0.9})
        except OSError:
            pytest.skip("this file system does not allow such names")
    assert run("--report").exit_code == 0
    page = Page()
    plain = [name.replace("\n", "\\n").replace("\u202e", "\\u202e") for name in HOSTILE]
    paths = [row["record"]["path"] for row in page.rows]
    assert sorted(paths) == sorted(f"{i}/{name}" for i, name in enumerate(plain))
    text = Path("results/report.html").read_text(encoding="utf-8")
    assert "alert(1)" in text
    assert not any(start in text for start in ("<script>alert", "<!--", "<img src=x", "\u202e"))
    assert page.tags.count("img") == 1  # that of the viewer
    assert len([a for a, _ in page.blocks if not a]) == 2  # the style and the script


def test_patients_are_named_only_on_request(place):
    folder = place / "in"
    folder.mkdir()
    pixels = paint({"hand": 0.9}, {"hand": 0.9}).astype(np.uint16)
    (folder / "a.dcm").write_bytes(dicom_file(dicom(pixels, bits=8, ViewPosition="PA")))
    assert run("--report").exit_code == 0
    text = Path("results/report.html").read_text(encoding="utf-8")
    assert [word for word in (*IDENTIFIERS, "2.25.100") if word in text] == []
    assert Page().rows[0]["header"]["ViewPosition"] == "PA"
    assert run("--report", "--identifiers", "keep").exit_code == 0
    assert Page().rows[0]["identity"]["PatientID"] == PATIENT_ID
    text = Path("results/report.html").read_text(encoding="utf-8")
    assert "this page contains patient names" in text


def test_page_shows_weights_settings_and_version(place):
    write_png(place / "in/a.png", {"hand": 0.9}, {"hand": 0.9})
    assert run("--report", "--operating-point", "specific", "--batch-size", 3).exit_code == 0
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


def test_page_without_heatmaps(place):
    write_png(place / "in/a.png", {"hand": 0.9}, {"hand": 0.9})
    assert run("--report", "--heatmaps", "none").exit_code == 0
    assert not any("layer" in finding for finding in Page().rows[0]["findings"])
    assert len(Page().views) == 1
    assert not (place / "results/heatmaps").exists()


def test_no_page_without_the_option(place):
    write_png(place / "in/a.png", {"hand": 0.9}, {"hand": 0.9})
    assert run().exit_code == 0
    assert sorted(p.name for p in (place / "results").iterdir()) == ["results.csv", "results.jsonl"]


def test_specialist_for_all_regions(place):
    write_bundles(place / "for-all", for_all())
    write_png(place / "in/a.png", {}, {"all": 0.9})
    assert run("--report", "--weights", "for-all").exit_code == 0
    assert [f["region"] for f in Page().rows[0]["findings"]] == ["all"]
    text = Path("results/report.html").read_text(encoding="utf-8")
    assert "any region" in text
    assert "No region stage" in text
