"""Workflows of readers on the page: login, worklist, reading, reviews, uploads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from page_answers import ATTACK
from page_service import PASSWORD, painted, png

expect = pytest.importorskip("playwright.sync_api").expect
CANVAS = """(canvas) => Array.from(canvas.getContext("2d")
  .getImageData(0, 0, canvas.width, canvas.height).data).filter((_, i) => i % 4 === 0)"""


def uploaded(served, number: int, name: str = "picture.png", **options) -> int:
    """Upload a picture, and return its number when it is answered."""
    picture = served.upload(painted(number, **options), name)
    for _ in range(300):
        found = served.request("GET", f"/pictures/{picture}")
        if found["results"]:
            return picture
    raise AssertionError("the picture was not judged")


def reviews_of(served, picture: int) -> list[dict]:
    result = served.request("GET", f"/pictures/{picture}")["results"][0]["id"]
    return served.request("GET", f"/results/{result}/reviews")


@contextmanager
def blind(served) -> Iterator[None]:
    """Enables blind reading for the administrator."""
    (user,) = served.request("GET", "/users")
    served.request("PATCH", f"/users/{user['id']}", {"blind": True})
    try:
        yield
    finally:
        served.request("PATCH", f"/users/{user['id']}", {"blind": False})


def test_set_up_code_is_removed_from_the_address_and_session_persists(opened, served):
    window = opened("worklist")
    expect(window.get_by_role("heading", name="Worklist")).to_be_visible()
    window.reload()
    expect(window.get_by_role("heading", name="Worklist")).to_be_visible()
    other = opened("worklist", storage_state=None)
    expect(other.get_by_role("heading", name="Log in")).to_be_visible()
    other.goto(served.setup)
    other.reload()
    expect(other.get_by_role("heading", name="Set up")).to_be_visible()
    assert "setup" not in other.url
    other.get_by_label("Name").fill("intruder")
    other.get_by_label("New password (").fill(PASSWORD)
    other.get_by_label("Repeat").fill(PASSWORD)
    other.keyboard.press("Enter")
    expect(other.get_by_role("alert")).to_contain_text(
        "the set-up code is wrong or was already used"
    )
    other.reload()
    other.get_by_label("Name").fill("admin")
    other.get_by_label("Password").fill("wrong password")
    other.get_by_role("button", name="Log in").click()
    expect(other.get_by_role("alert")).to_have_text("name or password is wrong")
    other.get_by_label("Password").fill(PASSWORD)
    other.keyboard.press("Enter")
    expect(other.get_by_role("link", name="admin", exact=True)).to_be_visible()
    other.get_by_role("button", name="Log out").click()
    expect(other.get_by_role("heading", name="Log in")).to_be_visible()


def test_worklist_shows_uploads_and_deletions_live(opened, served):
    window = opened("worklist")
    expect(window.locator("#connection")).to_have_text("live")
    picture = served.upload(painted(1), "arrives.png")
    row = window.locator("tr", has_text="arrives.png")
    expect(row).to_contain_text("positive")
    expect(row).to_contain_text("hand")
    served.request("DELETE", f"/pictures/{picture}")
    expect(row).to_contain_text("deleted")
    expect(row).to_have_count(0, timeout=15_000)


def test_fifty_reviews_by_keyboard_only(opened, served):
    pictures = [uploaded(served, 100 + number, positive=number % 2 == 0) for number in range(50)]
    window = opened("worklist?reviewed=false&order=newest")
    first = window.locator("tbody a").first
    expect(first).to_be_visible()
    for _ in range(30):
        window.keyboard.press("Tab")
        if first.evaluate("(link) => link === document.activeElement"):
            break
    window.keyboard.press("Enter")
    save = window.get_by_role("button", name="Save and next")
    for number, picture in enumerate(reversed(pictures)):
        window.wait_for_url(re.compile(rf"#/reading/{picture}\b"))
        expect(save).to_be_enabled()
        expect(window.locator(".figure")).to_be_visible()
        window.keyboard.press("afnu"[number % 4])
        if number == 0:
            window.keyboard.press("m")
            expect(window.locator(".stage.marking")).to_be_visible()
            window.keyboard.press("ArrowRight")
            window.keyboard.press("Space")
            expect(window.locator(".mark")).to_have_count(1)
            window.keyboard.press("Escape")
            window.keyboard.press("t")
            window.keyboard.type("a comment, not a command")
            window.keyboard.press("Escape")
        window.keyboard.press("Enter")
    expect(window.locator(".review-bar .state")).to_have_text("Saved. No more pictures to review.")
    verdicts = [reviews_of(served, picture)[0] for picture in reversed(pictures)]
    agreed = ["none" if (49 - n) % 2 else "fracture" for n in range(50)]
    expected = [(agreed[n], "fracture", "none", "unsure")[n % 4] for n in range(50)]
    assert [one["verdict"] for one in verdicts] == expected
    assert verdicts[0]["comment"] == "a comment, not a command"
    (mark,) = verdicts[0]["marks"]
    assert 32 < mark["x"] < 40
    assert mark["y"] == pytest.approx(32, abs=1)

    window.keyboard.press("z")  # undoes the last review, and shows its picture
    expect(window.locator("[data-verdict][aria-pressed=true]")).to_have_count(0)
    assert reviews_of(served, pictures[0])[-1]["verdict"] == "withdrawn"


def test_steps_are_undone_and_wrong_region_needs_a_region(opened, served):
    picture = uploaded(served, 200)
    window = opened(f"reading/{picture}")
    expect(window.locator(".figure")).to_be_visible()
    state, pressed = window.locator(".review-bar .state"), "[data-verdict][aria-pressed=true]"
    window.locator(".stage").focus()
    window.keyboard.press("Enter")
    expect(state).to_have_text("Select a verdict first.")
    window.keyboard.press("f")
    window.keyboard.press("r")
    window.keyboard.press("Enter")
    expect(state).to_have_text("Select the region that the picture shows.")
    window.keyboard.press("3")
    expect(window.locator("[data-region=shoulder]")).to_have_attribute("aria-pressed", "true")
    window.keyboard.press("z")
    window.keyboard.press("z")
    expect(window.locator(pressed)).to_contain_text("Fracture")
    window.get_by_role("button", name="Wrong region").click()
    window.get_by_role("button", name="elbow").click()
    window.keyboard.press("Enter")
    window.wait_for_url(lambda address: not address.endswith(f"/{picture}"))
    (review,) = reviews_of(served, picture)
    assert (review["verdict"], review["region"]) == ("wrong_region", "elbow")


def test_attack_strings_in_names_are_displayed_as_text(opened, served):
    script = "\"><script>alert(1)</script><svg onload=alert(2)>'{{7*7}}"
    picture = served.upload(painted(201), ATTACK)
    other = uploaded(served, 202)
    uploaded(served, 203, "javascript:alert(1)")
    window = opened("worklist?order=newest")
    expect(window.locator("bdi", has_text=ATTACK).first).to_be_visible()
    window.locator("bdi", has_text=ATTACK).first.click()
    expect(window.locator("h1 bdi")).to_have_text(ATTACK)
    window.goto(f"{served.address}#/reading/{other}?state={ATTACK}&region={script}")
    expect(window.locator("h1 bdi")).to_be_visible()
    window.goto(f"{served.address}#/worklist?answer={ATTACK}")
    expect(window.locator(".fault")).to_be_visible()
    window.goto(f"{served.address}#/uploads")
    with window.expect_file_chooser() as chooser:
        window.get_by_role("button", name="Choose files").click()
    file = {"name": script.replace("/", ""), "mimeType": "", "buffer": painted(204)}
    chooser.value.set_files([file])
    expect(window.locator(".uploads li")).to_contain_text("positive")
    expect(window.locator(".uploads bdi")).to_have_text(script.replace("/", ""))
    assert served.request("GET", f"/pictures/{picture}")["name"] == ATTACK


def test_blind_reading_never_receives_the_answer(opened, served):
    picture = uploaded(served, 210, "blind.png")
    with blind(served):
        window = opened("worklist")
        received: list[str] = []

        def keep(answer):
            if "/api/v1/" in answer.url and "json" in answer.headers["content-type"]:
                received.append(f"{answer.status} {answer.url} {answer.text()}")

        window.on("response", keep)
        expect(window.locator("tr", has_text="blind.png")).to_contain_text("hidden")
        expect(window.locator(".filters select")).to_have_count(2)  # review and state
        window.get_by_text("blind.png").click()
        expect(window.get_by_role("heading", name="Blind reading")).to_be_visible()
        expect(window.get_by_role("button", name="Agree")).to_be_disabled()
        expect(window.locator(".film .colours, .contour, .meter")).to_have_count(0)
        window.keyboard.press("m")
        expect(window.locator(".stage.marking")).to_be_visible()
        window.locator(".stage").click()
        expect(window.locator(".mark")).to_have_count(1)
        before = " ".join(one for one in received if f"/pictures/{picture}" in one)
        assert '"hidden":true' in before
        assert not re.search(r"positive|0\.9\d\d|probability\":[^n]|heatmap", before)

        window.keyboard.press("n")
        window.keyboard.press("Enter")
        expect(window.locator(".review-bar .state")).to_contain_text("Saved. fxpipe’s answer")
        expect(window.locator(".panel .badge.positive")).to_be_visible()
        expect(window.locator(".film .colours")).to_be_visible()
        expect(window.locator(".bar .chip")).to_contain_text("reviewed: No fracture")
    (review,) = reviews_of(served, picture)
    assert (review["blind"], review["verdict"]) == (True, "none")
    assert len(review["marks"]) == 1


def test_expired_session_keeps_input(opened, served):
    picture = uploaded(served, 220)
    window = opened(f"reading/{picture}")
    expect(window.locator(".figure")).to_be_visible()
    window.keyboard.press("u")
    window.get_by_label("Comment").fill("before the end of the session")
    window.context.clear_cookies()
    window.get_by_role("button", name="Save and next").click()
    dialog = window.get_by_role("dialog")
    expect(dialog).to_contain_text("Session expired")
    dialog.get_by_label("Password").fill(PASSWORD)
    window.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    window.wait_for_url(lambda address: not address.endswith(f"/{picture}"))
    (review,) = reviews_of(served, picture)
    assert (review["verdict"], review["comment"]) == ("unsure", "before the end of the session")


def test_changes_during_an_interruption_are_shown_afterwards(opened, served):
    window = opened("worklist?order=newest")
    expect(window.locator("#connection")).to_have_text("live")
    window.context.set_offline(True)
    expect(window.locator("#connection")).to_have_text("offline")
    expect(window.locator("#banner")).to_contain_text("offline")
    uploaded(served, 230, "meanwhile.png")
    window.context.set_offline(False)
    expect(window.locator("#connection")).to_have_text("live", timeout=15_000)
    expect(window.locator("#banner")).to_be_hidden()
    expect(window.get_by_text("meanwhile.png")).to_be_visible()


def test_refused_stream_is_reopened(opened, served):
    window = opened("worklist")
    expect(window.locator("#connection")).to_have_text("live")
    window.route("**/api/v1/events", lambda route: route.fulfill(status=503))
    window.evaluate("dispatchEvent(new Event('online'))")
    expect(window.locator("#connection")).to_have_text("reconnecting")
    window.unroute("**/api/v1/events")
    expect(window.locator("#connection")).to_have_text("live", timeout=15_000)


def test_conflict_keeps_the_input_and_reloads_on_demand(opened, served):
    picture = uploaded(served, 240)
    window = opened(f"reading/{picture}")
    expect(window.locator(".figure")).to_be_visible()
    detail = {"title": "Conflict", "status": 409, "detail": "the engine has changed"}
    window.route(
        re.compile("/results/[0-9]+/reviews$"),
        lambda route: (
            route.fallback()
            if route.request.method == "GET"
            else route.fulfill(status=409, json=detail)
        ),
    )
    window.keyboard.press("f")
    window.keyboard.press("Enter")
    expect(window.get_by_role("alert")).to_contain_text("the engine has changed")
    window.unroute_all()
    window.get_by_role("button", name="Reload").click()
    expect(window.locator("[data-verdict=fracture]")).to_have_attribute("aria-pressed", "true")
    served.request("DELETE", f"/pictures/{picture}")
    expect(window.locator(".stage")).to_contain_text("This picture was deleted.")
    expect(window.get_by_role("button", name="Save and next")).to_be_disabled()


def test_zoom_loads_full_resolution_with_sixteen_bits(opened, served):
    grey = np.tile(np.linspace(30_000, 30_250, 64).astype(np.uint16), (64, 1))
    grey[0, 0], grey[-1, -1] = 0, 65_535
    picture = served.upload(png(grey), "deep.png")
    window = opened(f"reading/{picture}")
    expect(window.locator(".film")).to_be_visible()
    window.keyboard.press("+")
    canvas = window.locator("canvas.pixels")
    expect(canvas).to_have_count(1)
    shown = np.array(canvas.evaluate(CANVAS)).reshape(64, 64)
    assert len(np.unique(shown[1:-1])) <= 2
    window.get_by_label("Contrast").fill("150")  # an eighth of all grey values
    window.get_by_label("Brightness").fill("4")
    window.wait_for_timeout(100)
    narrow = np.array(canvas.evaluate(CANVAS)).reshape(64, 64)
    assert len(np.unique(narrow[1:-1])) > 5
    assert (np.diff(narrow[1].astype(int)) >= 0).all()


def test_zoom_pan_and_window_by_mouse_and_touch(opened, served):
    picture = uploaded(served, 250)
    window = opened(f"reading/{picture}", has_touch=True)
    film, stage = window.locator(".film"), window.locator(".stage")
    expect(window.locator(".figure")).to_be_visible()
    whole, box = film.bounding_box(), stage.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    window.mouse.move(x, y)
    for _ in range(6):
        window.mouse.wheel(0, -100)
    larger = film.bounding_box()
    assert larger["width"] == pytest.approx(whole["width"] * 2**1.5, rel=0.02)
    window.mouse.down()
    window.mouse.move(x + 40, y + 30, steps=4)
    window.mouse.up()
    moved = film.bounding_box()
    assert moved["y"] == pytest.approx(larger["y"] + 30, abs=1)
    window.mouse.down(button="right")
    window.mouse.move(x + 130, y - 40, steps=4)
    window.mouse.up(button="right")
    assert float(window.get_by_label("Contrast").input_value()) > 0
    assert float(window.get_by_label("Brightness").input_value()) > 0
    window.keyboard.press("0")
    assert film.bounding_box() == whole
    pinch = window.context.new_cdp_session(window)
    for kind, spread in (("touchStart", 40), ("touchMove", 80), ("touchMove", 120)):
        points = [{"x": x - spread, "y": y, "id": 0}, {"x": x + spread, "y": y, "id": 1}]
        pinch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    pinch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert film.bounding_box()["width"] == pytest.approx(3 * whole["width"], rel=0.05)


def test_uploads_are_retried_and_stored_once(opened, served):
    window = opened("uploads")
    most = served.request("GET", "/pictures?order=newest&limit=1")["pictures"][0]["id"]
    refusals = iter([429, 507])
    active: set[str] = set()
    peak, keys = [0], []

    def answer(route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        status = next(refusals, None)
        if status:
            route.fulfill(status=status, headers={"Retry-After": "1"}, json={"detail": "busy"})
        else:
            route.fallback()

    def note(request, step) -> None:
        if request.url.endswith("/pictures") and request.method == "POST":
            step(request)
            peak[0] = max(peak[0], len(active))

    window.route("**/api/v1/pictures", answer)
    window.on("request", lambda request: note(request, active.add))
    window.on("requestfinished", lambda request: note(request, active.discard))
    files = [
        {"name": f"röntgen {number}.png", "mimeType": "image/png", "buffer": painted(300 + number)}
        for number in range(10)
    ]
    empty = {"name": "empty.png", "mimeType": "image/png", "buffer": b""}
    with window.expect_file_chooser() as chooser:
        window.get_by_role("button", name="Choose files").click()
    chooser.value.set_files([*files, files[0], empty])
    lines = window.locator(".uploads li")
    expect(lines).to_have_count(12)
    expect(lines.filter(has_text="retrying in 1 s").first).to_be_visible()
    expect(window.get_by_role("status").filter(has_text="11 of 12 files")).to_be_visible(
        timeout=20_000
    )
    expect(lines.filter(has_text="positive")).to_have_count(11, timeout=20_000)
    expect(lines.filter(has_text="already received")).to_have_count(1)
    expect(lines.filter(has_text="empty.png")).to_contain_text("found an empty body")
    assert peak[0] <= 4
    assert len(keys) >= 14
    assert all(re.fullmatch("[0-9a-f]{64}", key) for key in keys)
    pictures = served.request("GET", "/pictures?order=newest&limit=50")["pictures"]
    names = [one["name"] for one in pictures if one["id"] > most]
    assert sorted(names) == sorted(str(file["name"]) for file in files)


def test_filters_are_stored_in_the_address_and_by_name(opened, served):
    uploaded(served, 400, "negative.png", positive=False)
    uploaded(served, 401, "positive.png")
    window = opened("worklist")
    window.get_by_role("combobox", name="Answer").select_option("negative")
    expect(window.locator("tbody tr", has_text="positive.png")).to_have_count(0)
    assert "answer=negative" in window.url
    window.get_by_label("Name of these filters").fill("no fractures")
    window.get_by_role("button", name="Save filters").click()
    window.get_by_role("combobox", name="Answer").select_option("")
    expect(window.get_by_text("positive.png")).to_be_visible()
    window.reload()
    window.get_by_role("button", name="no fractures", exact=True).click()
    expect(window.get_by_text("positive.png")).to_have_count(0)
    expect(window.get_by_role("combobox", name="Answer")).to_have_value("negative")
    window.go_back()
    expect(window.get_by_text("positive.png")).to_be_visible()
    window.get_by_role("button", name="Delete the saved filters no fractures").click()
    expect(window.get_by_role("button", name="no fractures")).to_have_count(0)


def test_arrow_keys_move_in_the_worklist(opened, served):
    window = opened("worklist?order=newest")
    links = window.locator("tbody th a:first-child")
    expect(links.first).to_be_visible()
    links.first.focus()
    window.keyboard.press("ArrowDown")
    window.keyboard.press("ArrowDown")
    expect(links.nth(2)).to_be_focused()
    window.keyboard.press("End")
    expect(links.last).to_be_focused()
    window.keyboard.press("Home")
    window.keyboard.press("Enter")
    window.locator(".view.reading").wait_for()
    window.keyboard.press("j")
    expect(window.locator(".place")).to_contain_text("2 of")
    window.keyboard.press("Escape")
    expect(window.get_by_role("heading", name="Worklist")).to_be_visible()
