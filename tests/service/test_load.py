"""Long worklists and many uploads at once, in small; ``tests/service_load.py`` has the figures."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

import httpx
import many_pictures
import pytest
import service_load
from fastapi.testclient import TestClient
from service_process import ServiceProcess
from sqlalchemy import event
from tiny_networks import write_bundles

from pipeline.service import accounts
from pipeline.service.api.app import create_app
from pipeline.service.application import opened
from pipeline.service.settings import ServiceConfig

FEW, MANY = 600, 12_000
PAGES: dict[str, dict[str, str]] = {
    name: query for name, query in service_load.PAGES.items() if name != "hand, reviewed (rare)"
} | {
    "rare, not reviewed": {"region": "elbow", "reviewed": "false"},
    "answered, not reviewed": {"state": "answered", "reviewed": "false"},
    "waiting": {"state": "waiting"},
    "study": {"study": "7"},
    "study, not reviewed": {"study": "7", "reviewed": "false"},
    "study, region": {"study": "7", "region": "hand"},
    "later page": {"after": f"2-{FEW // 2}"},
    "later page, newest": {"after": f"0-{FEW // 2}", "order": "newest"},
    "later studies": {"after": f"2-{FEW // 8}"},
}  # fmt: skip


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """Steps of SQLite for each page, of a worklist with few and with many pictures."""
    weights = write_bundles(tmp_path_factory.mktemp("weights"))
    return [_steps(tmp_path_factory.mktemp("data"), weights, count) for count in (FEW, MANY)]


def _steps(data, weights, count):
    many_pictures.fill(data, count)
    executed: list[tuple[str, object]] = []
    with opened(data, weights, ServiceConfig(), judge=False) as service:
        _, token = service.database.write(lambda c: accounts.new_token(c, "r", "reader", "test"))
        with TestClient(create_app(service), base_url="http://localhost/api/v1") as client:
            client.headers["Authorization"] = f"Bearer {token}"

            @event.listens_for(service.database._engine, "before_cursor_execute")
            def note(_connection, _cursor, statement, parameters, *_):
                executed.append((statement, parameters))

            found = {}
            for name, query in PAGES.items():
                executed.clear()
                path = "/studies" if "studies" in name else "/pictures"
                answer = client.get(path, params=query)
                assert answer.status_code == 200, answer.text
                found[name] = _count(data, executed)
    return found


def _count(data, executed):
    """Steps of the virtual machine of SQLite for some statements."""
    count = 0

    def step():
        nonlocal count
        count += 1

    with closing(sqlite3.connect(data / "fxpipe.sqlite")) as connection:
        connection.set_progress_handler(step, 10)
        for statement, parameters in executed:
            connection.execute(statement, parameters).fetchall()
    return 10 * count


@pytest.mark.parametrize("name", PAGES)
def test_page_takes_no_more_steps_with_twenty_times_the_pictures(steps, name):
    few, many = (found[name] for found in steps)
    assert many < 2 * few + 3000


def test_uploads_at_once_are_all_acknowledged_and_judged(tmp_path):
    weights = write_bundles(tmp_path / "weights")
    words = ["--set", "most_waiting=4", "--set", "most_bodies=4"]
    burst = service_load.burst(tmp_path, weights, 60, *words)
    assert set(burst.answers) <= {"200", "201", "429"}, burst.answers
    assert burst.answers["429"] > 0
    assert (burst.pictures, burst.judged) == (60, 60)


def test_small_answers_are_sent_without_delay(tmp_path):
    """With Nagle's algorithm, all answers but the first would wait 40 ms for an acknowledgement."""
    service = ServiceProcess(tmp_path / "data", write_bundles(tmp_path / "weights"))
    try:
        service.start().wait_ready()
        with httpx.Client(base_url=service.url) as client:
            times = []
            for _ in range(30):
                started = time.perf_counter()
                assert client.get("/livez").status_code == 200
                times.append(time.perf_counter() - started)
        assert sorted(times)[5] < 0.03
    finally:
        service.stop()
