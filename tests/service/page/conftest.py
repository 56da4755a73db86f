"""A service with tiny weights, and windows of a browser in which its page is open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from page_service import PASSWORD, Served, serving
from playwright.sync_api import expect, sync_playwright
from tiny_networks import write_bundles
from tools import need

VIOLATIONS = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) =>
  violations.push(`${event.violatedDirective} ${event.blockedURI}`), true);
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, closed after each module: its event loop would disturb other tests."""
    expect.set_options(timeout=20_000)
    with sync_playwright() as started:
        program = need("chromium")
        opened = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service for the tests of a module."""
    home = tmp_path_factory.mktemp("service")
    with serving(home / "data", write_bundles(home / "weights")) as started:
        yield started


@pytest.fixture(scope="module")
def login(browser: Any, served: Served) -> Any:
    """Cookies of the first administrator, who is created with the set-up link."""
    context = browser.new_context()
    window = context.new_page()
    window.goto(served.setup)
    window.get_by_label("Name").fill("admin")
    window.get_by_label("New password (").fill(PASSWORD)
    window.get_by_label("Repeat").fill(PASSWORD)
    window.get_by_role("button", name="Create administrator").click()
    window.get_by_role("heading", name="Worklist").wait_for()
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def opened(browser: Any, served: Served, login: Any) -> Iterator[Callable[..., Any]]:
    """Opens views; asserts at the end that no script failed and no CSP violation occurred."""
    contexts, windows, faults = [], [], []

    def open_view(view: str, width: int = 1400, **options: Any) -> Any:
        options = {"storage_state": login} | options
        height = 844 if width < 500 else 900
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        window = context.new_page()
        contexts.append(context)
        windows.append(window)
        window.add_init_script(VIOLATIONS)
        window.on("pageerror", lambda error: faults.append(str(error)))
        window.on("dialog", lambda dialog: faults.append(f"dialog {dialog.message}"))
        window.goto(f"{served.address}#/{view}")
        return window

    yield open_view
    violations = [one for w in windows for one in w.evaluate("window.violations")]
    for context in contexts:
        context.close()
    assert (faults, violations) == ([], [])
