"""The page of ``--report`` in a browser, opened from disk and used with the keyboard."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from playwright.sync_api import sync_playwright
from tools import need

from pipeline.cli import main
from pipeline.config import RunConfig
from pipeline.engine import run
from pipeline.heatmap import contours
from pipeline.outcome import Outcome
from pipeline.report.page_row import URGENCY
from pipeline.runtime.session import load_bundles

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    program = need("chromium")
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """The page of a run on the samples."""
    output = tmp_path_factory.mktemp("results")
    words = ["--input", str(ROOT / "samples"), "--weights", str(ROOT / "weights")]
    words += ["--output", str(output), "--report", "--device", "cpu", "--quiet"]
    assert CliRunner().invoke(main, ["run", *words], catch_exceptions=False).exit_code == 1
    return output / "report.html"


class Opened:
    """The page in a window, with its console messages, errors and requests."""

    def __init__(self, browser, file: Path) -> None:
        self.window = browser.new_page(viewport={"width": 1366, "height": 768})
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.window.on("console", lambda message: self.messages.append(message.text))
        self.window.on("pageerror", lambda error: self.messages.append(str(error)))
        self.window.on("request", lambda request: self.requests.append(request.url))
        self.window.goto(file.as_uri())
        self.window.locator("html[data-ready]").wait_for()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.window.keyboard.press(key)

    # Text contents: a row outside of the view is not rendered and has no inner text.
    def names(self) -> list[str]:
        return self.window.locator("#worklist .open").all_text_contents()

    def answers(self) -> list[str]:
        return self.window.locator("#worklist td.answer").all_text_contents()

    def wait_for_focus(self, name: str) -> None:
        self.window.locator(".open:focus").filter(has_text=name).wait_for()


@pytest.fixture
def page(browser, report):
    opened = Opened(browser, report)
    yield opened
    assert opened.messages == []
    assert [url for url in opened.requests if not url.startswith(("data:", report.as_uri()))] == []
    opened.window.close()


def test_rows_are_sorted_by_urgency_and_pictures_are_loaded_lazily(page):
    answers = page.answers()
    assert len(answers) == 17
    assert answers == sorted(answers, key=URGENCY.index)
    table = page.window.locator("#worklist")
    assert table.get_by_role("row").count() == 17 + 1  # a table for screen readers too
    cells = page.window.locator("td.chance").all_text_contents()
    figures = [cell.partition("positive from")[0] for cell in cells]
    for answer in ("positive", "uncertain", "negative"):
        inside = [float(f) for f, a in zip(figures, answers, strict=True) if a == answer]
        assert inside == sorted(inside, reverse=True)
    counts = {a: int(page.window.locator(f"[data-count={a}]").inner_text()) for a in URGENCY}
    assert counts == {a: answers.count(a) for a in URGENCY}
    page.window.locator("td.thumb img[src]").first.wait_for()
    loaded = page.window.evaluate("[...document.images].filter((image) => image.src).length")
    assert 0 < loaded < 15
    assert "3 of 17 inputs got no verdict" in page.window.locator("#unjudged").inner_text()
    assert page.window.locator("#state").is_hidden()


def test_rows_can_be_filtered(page):
    everything = page.names()
    page.window.get_by_label("File name").fill("img00005")
    assert page.names() == ["IMG0000511.jpg"]
    page.window.get_by_label("File name").fill("")
    page.window.get_by_label("Region").select_option("shoulder")
    assert set(page.names()) == {"IMG0002503.jpg", "IMG0000346.jpg", "IMG0000764.jpg"}
    page.window.locator("label.answer.positive input").uncheck()
    assert set(page.names()) == {"IMG0000346.jpg", "IMG0000764.jpg"}
    assert page.window.locator("#shown").inner_text() == "2 of 17 inputs"
    page.window.get_by_label("Region").select_option("none")
    assert set(page.names()) == {"IMG0000221.jpg", "README.md", "IMG0004119.jpg"}
    page.window.get_by_label("Region").select_option("")
    page.window.locator("label.answer.positive input").check()
    assert page.names() == everything


def test_page_works_with_the_keyboard(page):
    page.press("Tab", "Tab")
    page.press("/")
    page.window.keyboard.type("IMG000138")
    page.press("Tab", "Tab")  # skip the check box for grouping by study
    page.wait_for_focus("IMG0001380.jpg")
    page.press("Enter")
    viewer = page.window.locator("#viewer")
    assert viewer.is_visible()
    assert "fracture, in a picture of the hand" in viewer.inner_text().lower()
    colours, line = page.window.locator(".colours"), page.window.locator("svg.contour")
    assert (colours.is_visible(), line.is_visible()) == (True, True)
    page.press("h", "c")
    assert (colours.is_visible(), line.is_visible()) == (False, False)
    page.press("h", "c")
    assert (colours.is_visible(), line.is_visible()) == (True, True)
    picture = page.window.locator("#picture")
    before = picture.bounding_box()
    page.press("+", "ArrowUp")
    assert picture.bounding_box()["width"] == pytest.approx(1.25 * before["width"], rel=0.01)
    assert picture.bounding_box()["y"] != before["y"]
    page.press("i", "b", "m")
    channel = "document.querySelector('feFuncR').getAttribute('slope')"
    slope = float(page.window.evaluate(channel))
    assert slope < -0.85  # inverted, and steeper than without contrast
    assert "url" in picture.evaluate("(image) => getComputedStyle(image).filter")
    page.press("0")
    assert picture.bounding_box() == before
    assert picture.evaluate("(image) => getComputedStyle(image).filter") == "none"
    page.press("?")
    assert page.window.locator("#help").is_visible()
    page.press("Escape")
    assert (page.window.locator("#help").is_visible(), viewer.is_visible()) == (False, True)
    page.press("Escape")
    assert not viewer.is_visible()
    page.wait_for_focus("IMG0001380.jpg")


def test_arrow_keys_move_in_the_list_and_n_and_p_between_pictures(page):
    names = page.names()
    page.window.locator(".open").first.focus()
    page.press("ArrowDown", "ArrowDown")
    page.wait_for_focus(names[2])
    page.press("End")
    page.wait_for_focus(names[-1])
    page.press("Enter")
    viewer = page.window.locator("#viewer")
    assert "truncated" in viewer.inner_text()
    assert page.window.locator("#no-picture").is_visible()
    page.press("n", "h", "0", "p", "p")
    assert page.window.locator("#viewer-name").inner_text() == names[-3]
    page.press("Escape")
    page.wait_for_focus(names[-3])


@pytest.fixture(scope="module")
def positive() -> Outcome:
    config = RunConfig(device="cpu", heatmaps="positive")
    weights = load_bundles(ROOT / "weights", config)
    (outcome,) = run([ROOT / "samples/IMG0001380.jpg"], weights, config, rendered=True)
    return outcome


@pytest.mark.parametrize("keys", [(), ("+", "+", "ArrowUp", "ArrowLeft")])
def test_heatmap_is_drawn_at_its_place_in_the_picture(page, positive, keys):
    heatmap = positive.findings[0].heatmap
    assert heatmap is not None
    page.window.get_by_text("IMG0001380.jpg").click()
    page.press(*keys)
    left, top, right, bottom = page.window.locator("#picture").evaluate(BOX)
    height, width = heatmap.placement.source_shape
    scale = (right - left) / width
    assert (bottom - top) / height == pytest.approx(scale, rel=0.01)

    points = np.concatenate(contours(heatmap, 0.5))
    expected = [(*points.min(0)[::-1], *points.max(0)[::-1])]
    canvas = heatmap.placement.to_source(0.0, 0.0), heatmap.placement.to_source(*heatmap.canvas_px)
    expected.append((*canvas[0][::-1], *canvas[1][::-1]))
    drawn = [
        page.window.locator("svg.contour path").last.evaluate(DRAWN),
        page.window.locator(".colours").evaluate(BOX),
    ]
    for expected_px, drawn_px in zip(expected, drawn, strict=True):
        on_screen = np.array(expected_px) * scale + (left, top, left, top)
        assert drawn_px == pytest.approx(on_screen, abs=1.0)


BOX = """(part) => {
  const box = part.getBoundingClientRect();
  return [box.left, box.top, box.right, box.bottom];
}"""
DRAWN = """(path) => {
  const box = path.getBBox(), to = path.getScreenCTM();
  const corner = (x, y) => new DOMPoint(x, y).matrixTransform(to);
  const a = corner(box.x, box.y), b = corner(box.x + box.width, box.y + box.height);
  return [a.x, a.y, b.x, b.y];
}"""


def test_page_explains_answers_once_and_shows_thresholds(page):
    meaning = page.window.locator("#meaning")
    meaning.locator("summary").click()
    words = " ".join(meaning.inner_text().split())
    assert "does not mean that the fracture is in the shoulder" in words
    assert "Evidence outside a rough mask of the limb" in words
    assert "Negative does not exclude a fracture" in words
    chances = [" ".join(c.split()) for c in page.window.locator("td.chance").all_text_contents()]
    assert all("positive from 0." in chance for chance in chances[:14])
    findings = page.window.locator("td.about").all_text_contents()
    assert all("fracture, in a picture of the " in about for about in findings[:14])
    assert "Two exposures on one plate: one answer for both" in " ".join(findings)
    assert "several-exposures" not in " ".join(findings)


def test_hidden_evidence_is_reported(browser, report, tmp_path):
    whole = re.sub(r'"hidden":[0-9.e-]+', '"hidden":0.4', report.read_text(encoding="utf-8"))
    (tmp_path / "report.html").write_text(whole, encoding="utf-8")
    page = Opened(browser, tmp_path / "report.html")
    page.window.get_by_text("IMG0001380.jpg").click()
    told = page.window.locator("#panel").inner_text()
    assert "40 % of the evidence for the finding is outside the limb and is not shown" in told
    assert page.messages == []
    page.window.close()


def test_print_view_has_no_controls(page):
    page.window.emulate_media(media="print")
    for control in ("#help-open", "#filters select", "#filters [type=search]", "#filters input"):
        assert page.window.locator(control).first.is_hidden()
    assert page.window.locator(".intended").first.is_visible()
    assert page.window.locator("#about").is_visible()
    ground = page.window.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(255, 255, 255)"
    page.window.emulate_media(media="screen")
    page.window.get_by_text("IMG0001380.jpg").click()
    page.window.emulate_media(media="print")
    assert page.window.locator(".tools").is_hidden()
    assert page.window.locator("#viewer .intended").is_visible()
    assert page.window.locator("#picture").bounding_box()["height"] > 100


def test_page_of_a_killed_run_shows_its_finished_rows(browser, report, tmp_path):
    whole = report.read_text(encoding="utf-8")
    blocks = whole.split('<script type="application/json" class="row">')
    cut = tmp_path / "report.html"
    cut.write_text(
        '<script type="application/json" class="row">'.join(blocks[:5]) + blocks[5][:900]
    )
    page = Opened(browser, cut)
    state = page.window.locator("#state").inner_text()
    assert "did not finish" in state
    assert len(page.names()) in (4, 5)
    assert page.messages == []
    page.window.close()


def test_studies_are_grouped_and_hostile_text_is_shown_as_text(browser, report, tmp_path):
    whole = report.read_text(encoding="utf-8")
    for name in ("IMG0001380", "IMG0000346"):
        whole = whole.replace(f'"path":"{name}', f'"study":"S1","path":"{name}')
    whole = whole.replace('"path":"README.md"', '"path":"\\u003cimg src=x onerror=alert(1)>"')
    grouped = tmp_path / "report.html"
    grouped.write_text(whole, encoding="utf-8")
    page = Opened(browser, grouped)
    page.window.get_by_label("Group by study").check()
    assert page.names()[:2] == ["IMG0001380.jpg", "IMG0000346.jpg"]
    assert len(page.names()) == 17
    title = page.window.locator("tr.study").first.inner_text()
    assert "Study S1 · 2 pictures" in title
    assert "<img src=x onerror=alert(1)>" in page.names()
    assert page.messages == []
    page.window.close()
