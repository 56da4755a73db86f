"""Rendering of all views and states: dark and light, desktop and phone, accessibility."""

from __future__ import annotations

import re

import pytest
from page_answers import ANSWERS, ATTACK, NO_QUALITY, answer_with
from page_service import PASSWORD, painted

expect = pytest.importorskip("playwright.sync_api").expect

VIEWS = {
    "worklist": "tbody tr", "study/1": ".tile", "uploads": ".zone", "reviews": "tbody tr",
    "quality": ".chart", "admin/users": "tbody tr", "admin/tokens": "tbody tr",
    "admin/peers": "tbody tr", "admin/engines": "tbody tr", "admin/rules": "tbody tr",
    "admin/outbox": "tbody tr", "admin/audit": "tbody tr", "profile": "form",
}  # fmt: skip
"""Views, each with an element that is visible once the view is complete."""
WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"


def findings(window) -> list[str]:
    """Violations found by axe-core, one line each."""
    axe_module = pytest.importorskip("axe_playwright_python.sync_playwright")
    options = {"resultTypes": ["violations"]}
    response = axe_module.Axe().run(window, options=options).response
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in response["violations"]
        for node in one["nodes"]
    ]


def faults(window) -> list[str]:
    """Accessibility violations, and whether the page is wider than the window."""
    # Contrast is undefined while colours are animated.
    window.evaluate("""() => Promise.all(document.getAnimations()
      .filter((one) => one.effect.getTiming().iterations !== Infinity)
      .map((one) => one.finished))""")
    scroll_px, width_px = window.evaluate(WIDTHS)
    return findings(window) + [f"{scroll_px} px wide"] * (scroll_px > width_px)


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_every_view_is_accessible_and_fits(opened, served, scheme, width):
    window = opened("profile", width, color_scheme=scheme)
    answer_with(window, *ANSWERS)
    found = {}
    for view, drawn in VIEWS.items():
        window.goto(f"{served.address}#/{view}")
        expect(window.locator(f".view.{view.partition('/')[0]} {drawn}").first).to_be_visible()
        found[view] = faults(window)
    assert {view: some for view, some in found.items() if some} == {}
    ground = window.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"dark": "rgb(14, 18, 22)", "light": "rgb(244, 246, 248)"}[scheme]


def test_phone_shows_all_navigation_links_and_one_line_rows(opened, served):
    window = opened("profile", 390)
    answer_with(window, *ANSWERS)
    for view in ("admin/audit", "reviews"):
        window.goto(f"{served.address}#/{view}")
        expect(window.locator(".view tbody tr").first).to_be_visible()
        for link in window.locator("nav.views a, nav.tabs a").all():
            box = link.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 390
    for cell in window.locator("tbody tr :is(th, td).short").all():
        assert cell.bounding_box()["height"] < 60


def test_study_displays_the_name_of_the_patient(opened, served):
    window = opened("profile")
    answer_with(window, *ANSWERS)
    window.goto(f"{served.address}#/study/1")
    expect(window.get_by_text("Doe, Jane")).to_be_visible()


@pytest.fixture(scope="module")
def picture(served) -> int:
    """An answered picture."""
    number = served.upload(painted(1))
    for _ in range(300):
        if served.request("GET", f"/pictures/{number}")["results"]:
            return number
    raise AssertionError("the picture was not judged")


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_reading_is_accessible_and_fits(opened, served, picture, scheme, width):
    window = opened(f"reading/{picture}", width, color_scheme=scheme)
    expect(window.locator(".film .colours")).to_be_visible()
    window.get_by_role("button", name="Wrong region").click()
    window.get_by_role("button", name="Mark", exact=False).first.click()
    assert faults(window) == []
    window.keyboard.press("Escape")
    window.get_by_role("button", name="Shortcuts").click()
    expect(window.get_by_role("dialog")).to_be_visible()
    assert faults(window) == []
    if width == 390:  # the review bar is visible without scrolling
        window.get_by_role("button", name="Close").click()
        save = window.get_by_role("button", name="Save and next").bounding_box()
        assert save["y"] + save["height"] <= 844


def test_marking_waits_until_the_picture_is_loaded(opened, served, picture):
    window = opened("profile")
    held = []
    window.route("**/view", lambda route: held.append(route))
    window.goto(f"{served.address}#/reading/{picture}")
    expect(window.get_by_role("button", name="Save and next")).to_be_enabled()
    window.keyboard.press("m")
    window.wait_for_timeout(300)
    held[0].continue_()
    expect(window.locator(".stage.marking")).to_be_visible()


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_login_and_set_up_are_accessible_and_fit(opened, served, scheme):
    window = opened("", 390, color_scheme=scheme, storage_state=None)
    expect(window.get_by_role("heading", name="Log in")).to_be_visible()
    assert faults(window) == []
    window.goto(f"{served.address}#setup=code")
    window.reload()
    expect(window.get_by_role("heading", name="Set up")).to_be_visible()
    assert faults(window) == []


def test_every_state_is_displayed(opened, served):
    window = opened("profile")
    answer_with(window, *ANSWERS)
    window.goto(f"{served.address}#/worklist")
    rows = window.locator("tbody tr")
    states = (
        "reviewed: Fracture", "disputed", "uncertain", "negative", "hidden", "unsupported",
        "failed", "in progress", "waiting",
    )  # fmt: skip
    for row, state in zip(range(9), states, strict=True):
        expect(rows.nth(row)).to_contain_text(state)
        expect(rows.nth(row).locator("svg.icon").first).to_be_visible()
    expect(rows.nth(0)).to_contain_text("sent")
    expect(rows.nth(2)).to_contain_text("not sent")
    expect(rows.nth(2)).to_contain_text(ATTACK)
    window.goto(f"{served.address}#/study/1")
    expect(window.locator(".chips li").first).to_have_text("sent Report · PACS")


def test_quality_warns_of_drift_and_handles_missing_data(opened, served):
    window = opened("profile")
    answer_with(window, "/quality")
    window.goto(f"{served.address}#/quality")
    warnings = window.locator(".warning")
    expect(warnings).to_have_count(1)
    expect(warnings).to_contain_text("rate of unsupported pictures has drifted: 14.0 %")
    expect(window.locator(".large")).to_have_text("κ = 0.81")
    hand = window.locator("tr", has=window.get_by_role("rowheader", name="hand"))
    expect(hand).to_contain_text("88.0 % (82.0 % to 94.0 %)")
    window.get_by_text("Figures as a table").click()
    expect(window.get_by_role("table", name="Weekly rates").locator("tbody tr")).to_have_count(13)
    window.unroute_all()
    answer_with(window, "/quality", quality=NO_QUALITY)
    window.reload()
    expect(window.get_by_text("No reviews yet.").first).to_be_visible()
    expect(window.locator(".warning")).to_have_count(0)
    assert findings(window) == []


def test_administration_submits_its_forms(opened, served):
    window = opened("profile")
    asked = answer_with(window, *ANSWERS)
    window.goto(f"{served.address}#/admin/peers")
    window.get_by_role("button", name="Allow").click()
    window.get_by_role("dialog").get_by_role("button", name="Allow").click()
    wanted = {"title": "MODALITY1", "host": "10.0.0.77", "receive": True, "send": False}
    expect(window.get_by_role("dialog")).to_have_count(0)
    window.get_by_role("button", name="Test").first.click()
    expect(window.get_by_text("responds", exact=True)).to_be_visible()
    window.get_by_role("button", name="Test").last.click()
    expect(window.get_by_text("no response: connection refused")).to_be_visible()
    assert ("POST", "/peers", wanted | {"tls": False}) in asked

    window.goto(f"{served.address}#/admin/rules")
    window.get_by_label("Delete after (days)").fill("30")
    window.get_by_role("button", name="Preview").click()
    expect(window.get_by_text("This rule would delete 17 pictures now.")).to_be_visible()
    assert ("POST", "/rules/preview", {"days": 30}) in asked
    window.get_by_role("button", name="Add rule").click()
    expect(window.get_by_label("Delete after (days)")).to_have_value("")
    assert ("POST", "/rules", {"days": 30}) in asked

    window.goto(f"{served.address}#/admin/engines")
    window.get_by_role("button", name="Compare").click()
    expect(
        window.get_by_text("94.0 % of the answers are identical (200 pictures).")
    ).to_be_visible()
    assert findings(window) == []
    window.route(
        re.compile("/engines/2/promote$"),
        lambda route: route.fulfill(status=409, json={"detail": "it has not judged all yet"}),
    )
    window.get_by_role("button", name="Promote").click()
    window.get_by_role("dialog").get_by_role("button", name="Promote").click()
    expect(window.get_by_text("it has not judged all yet")).to_be_visible()

    window.goto(f"{served.address}#/admin/users")
    form = window.get_by_role("form", name="New user")
    form.get_by_label("Name").fill("reader")
    form.get_by_label("Password").fill("a long password")
    form.get_by_label("Blind first read").check()
    form.get_by_role("button", name="Add").click()
    expect(form.get_by_label("Name")).to_have_value("")
    user = {"name": "reader", "role": "reader", "password": "a long password", "blind": True}
    assert ("POST", "/users", user) in asked


def test_tokens_are_created_and_revoked(opened, served):
    window = opened("admin/tokens")
    window.get_by_label("Name").fill("modality")
    window.get_by_role("button", name="Add").click()
    secret = window.locator(".secret code")
    expect(secret).to_have_text(re.compile("^fxp_"))
    row = window.locator("tr", has_text="modality")
    expect(row).to_contain_text("valid")
    row.get_by_role("button", name="Revoke").click()
    window.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(row).to_contain_text("revoked")


def test_a_reader_can_switch_blind_reading_on_but_not_off(opened, served):
    reader = {"name": "cautious", "role": "reader", "password": PASSWORD}
    served.request("POST", "/users", reader)
    window = opened("profile", storage_state=None)
    window.get_by_label("Name").fill("cautious")
    window.get_by_label("Password").fill(PASSWORD)
    window.get_by_role("button", name="Log in").click()
    form = window.get_by_role("form", name="Reading")
    form.get_by_label("Blind first read").check()
    form.get_by_role("button", name="Save").click()
    expect(window.locator(".view p[role=status]")).to_have_text("Blind first read is on.")
    expect(form).to_have_count(0)
    window.reload()
    expect(window.get_by_text("Only an administrator can switch it off again.")).to_be_visible()
    expect(form).to_have_count(0)


def test_an_administrator_can_switch_blind_reading_off(opened, served):
    window = opened("profile")
    form = window.get_by_role("form", name="Reading")
    for state in ("on", "off"):
        form.get_by_label("Blind first read").click()
        form.get_by_role("button", name="Save").click()
        expect(window.locator(".view p[role=status]")).to_have_text(f"Blind first read is {state}.")
    expect(form.get_by_label("Blind first read")).not_to_be_checked()
