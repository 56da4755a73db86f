"""Prometheus metrics, and access to them."""

from __future__ import annotations

from contextlib import closing

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from service_database import ENGINE
from sqlalchemy import insert, update

from pipeline.service import accounts, job_queue, results
from pipeline.service import tables as t
from pipeline.service.api.app import create_app
from pipeline.service.application import Service
from pipeline.service.arrivals import Arrival
from pipeline.service.blobs import Blobs
from pipeline.service.results import NewResult
from pipeline.service.settings import ServiceConfig
from pipeline.service.view_cache import ViewCache


@pytest.fixture
def service(database, tmp_path):
    folder = tmp_path / "data"
    blobs = Blobs(folder, 0)
    database.write(lambda c: c.execute(insert(t.engine).values(**ENGINE)))
    return Service(folder, ServiceConfig(), database, blobs, ViewCache(folder))


def client(service, host="127.0.0.1"):
    return closing(TestClient(create_app(service), base_url="http://localhost", client=(host, 1)))


def receive(service, content, source="http"):
    arrival = Arrival(service.blobs.store(content), "Doe^Jane.png", source, "Dr. Roe")
    return service.receive(arrival)[0]


def judge(service, answer, status="ok"):
    (claim,) = service.database.write(lambda c: job_queue.claim(c, 1, "p", 1))
    result = NewResult(-1, status, answer, None, None, {}, {"answer": answer})
    service.database.write(
        lambda c: results.finish(c, claim, [result], {"StudyInstanceUID": "1.2"})
    )


def figures(service):
    with client(service) as http:
        response = http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    assert "Doe" not in response.text
    assert "Roe" not in response.text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_pictures_are_counted_by_source_and_answer(service):
    values = figures(service)
    assert values["fxpipe_pictures_received_total", "http"] == 0
    for n in range(3):
        receive(service, f"{n}".encode())
    receive(service, b"d", "dicom")
    judge(service, "positive")
    judge(service, "failed", "failed")
    values = figures(service)
    assert values["fxpipe_pictures_received_total", "http"] == 3
    assert values["fxpipe_pictures_received_total", "dicom"] == 1
    assert values["fxpipe_pictures_received_total", "watch"] == 0
    assert values["fxpipe_pictures_judged_total", "positive"] == 1
    assert values["fxpipe_pictures_judged_total", "failed"] == 1
    assert values["fxpipe_pictures_judged_total", "negative"] == 0
    assert values[("fxpipe_jobs_waiting",)] == 2
    judge(service, "positive")
    service.remove(1, "admin")
    values = figures(service)
    assert values["fxpipe_pictures_judged_total", "positive"] == 2
    assert values["fxpipe_pictures_received_total", "http"] == 3


def test_the_counters_continue_after_a_restart(service):
    receive(service, b"a")
    judge(service, "negative")
    before = figures(service)
    again = Service(service.folder, service.config, service.database, service.blobs, service.views)
    after = figures(again)
    for key in before:
        if key[0].startswith("fxpipe_pictures"):
            assert after[key] == before[key]


def test_the_age_of_the_oldest_waiting_file(service):
    assert figures(service)[("fxpipe_oldest_waiting_seconds",)] == 0
    receive(service, b"a")
    receive(service, b"b")
    service.database.write(
        lambda c: c.execute(
            update(t.job).where(t.job.c.id == 1).values(created_ms=t.job.c.created_ms - 90_000)
        )
    )
    age_s = figures(service)[("fxpipe_oldest_waiting_seconds",)]
    assert 90 <= age_s < 120


def test_judging_seconds_disk_and_outbox(service):
    service.metrics.judged(0.4)
    service.metrics.judged(4.0)
    values = figures(service)
    assert values[("fxpipe_judging_seconds_count",)] == 2
    assert values["fxpipe_judging_seconds_bucket", "0.5"] == 1
    assert values[("fxpipe_disk_free_bytes",)] > 0
    for state in ("waiting", "sent", "failed", "attention"):
        assert values["fxpipe_outbox_objects", state] == 0


def test_two_services_have_separate_metrics(service):
    other = Service(service.folder, service.config, service.database, service.blobs, service.views)
    service.metrics.judged(1.0)
    assert figures(other)[("fxpipe_judging_seconds_count",)] == 0


def token(service, role):
    return service.database.write(lambda c: accounts.new_token(c, role, role, "test"))[1]


@pytest.mark.parametrize(
    ("role", "status"), [("auditor", 200), ("admin", 200), ("reader", 403), ("sender", 403)]
)
def test_other_machines_need_an_auditor_token(service, role, status):
    headers = {"Authorization": f"Bearer {token(service, role)}"}
    for host in ("192.0.2.7", "127.0.0.1"):
        with client(service, host) as http:
            assert http.get("/metrics", headers=headers).status_code == status


def test_anonymous_requests_are_admitted_from_this_machine_only(service):
    for host, headers, status in (
        ("127.0.0.1", {}, 200), ("::1", {}, 200), ("192.0.2.7", {}, 401), ("unix", {}, 401),
        ("127.0.0.1", {"X-Forwarded-For": "192.0.2.7"}, 401),
        ("127.0.0.1", {"Forwarded": "for=192.0.2.7"}, 401),
        ("127.0.0.1", {"Authorization": "Bearer wrong"}, 401),
    ):  # fmt: skip
        with client(service, host) as http:
            assert http.get("/metrics", headers=headers).status_code == status, (host, headers)
