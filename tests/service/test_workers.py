"""Several processes judge the pictures of one PostgreSQL database; one of them is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
from bundles import paint
from click.testing import CliRunner
from factories import raster
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from processes import family
from service_process import ServiceProcess
from sqlalchemy import func, select, update
from tiny_networks import write_bundles
from tiny_service import RUN

from pipeline.cli import main
from pipeline.service import application, arrivals, engine_state, job_queue, schema
from pipeline.service import tables as t
from pipeline.service.arrivals import Arrival
from pipeline.service.blobs import Blobs
from pipeline.service.database import Database
from pipeline.service.job_queue import CRASHED, KILLED
from pipeline.service.settings import ServiceConfig

ROOT = Path(__file__).parents[2]
WAIT_S = 120.0


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_bundles(tmp_path_factory.mktemp("weights"))


@contextmanager
def worker(data, url, weights):
    """A process with the role ``work`` that is ready; killed at the end of the block."""
    words = [
        "serve", "--data", data, "--database", url, "--roles", "work", "--weights", weights,
        "--set", "run.workers=1",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *map(str, words)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "FXPIPE_SUPERVISED": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def until(condition, what):
    """Wait for a condition."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_three_workers_share_a_queue_and_one_is_killed(request, postgresql_url, weights, tmp_path):
    data = tmp_path / "data"
    blobs = Blobs(data, 0)
    database = Database(postgresql_url)
    request.addfinalizer(database.close)
    schema.upgrade(database)
    sent: dict[int, str] = {}

    def receive(arrival):
        return database.write(lambda c: arrivals.receive(c, arrival, lambda _: True))

    def send(count):
        for _ in range(count):
            n = len(sent)
            path = tmp_path / f"{n}.png"
            fracture = 0.9 if n % 2 else 0.1
            text = PngInfo()
            text.add_text("Number", str(n))  # so that all contents differ
            picture = Image.fromarray(paint({"hand": 0.9}, {"hand": fracture}))
            picture.save(path, pnginfo=text)
            arrival = Arrival(blobs.store(path.read_bytes()), path.name, "http", "test")
            number, _ = receive(arrival)
            sent[number] = "positive" if n % 2 else "negative"

    def owners():
        query = select(t.job.c.owner).where(t.job.c.owner.is_not(None)).distinct()
        with database.read() as connection:
            return set(connection.scalars(query))

    def answers():
        query = select(t.arrival.c.id, t.arrival.c.answer).where(t.arrival.c.answer.is_not(None))
        with database.read() as connection:
            return {row.id: row.answer for row in connection.execute(query)}

    with ExitStack() as stack:
        workers = [stack.enter_context(worker(data, postgresql_url, weights)) for _ in range(3)]
        for process in workers:
            assert process.stdout.readline() == "fxpipe runs work\n"

        def all_take_part():
            if store_waiting(database) < 20:
                send(20)
            return len(owners()) == 3

        until(all_take_part, "a worker has no job")
        send(60)
        workers[0].kill()
        workers[0].wait()
        until(lambda: store_waiting(database) == 0, "the queue is not empty")
        # The leases of the killed process end in a minute; end them now.
        database.write(lambda c: c.execute(update(t.job).values(lease_ms=0)))
        until(lambda: answers() == sent, f"{len(sent)} sent, {len(answers())} answered")
        for process in workers[1:]:
            process.terminate()
            assert process.wait(WAIT_S) == 0
    with database.read() as connection:
        per_job = connection.execute(
            select(t.result.c.job_id, func.count()).group_by(t.result.c.job_id)
        ).all()
        engines = connection.scalars(select(t.engine.c.state)).all()
        states = Counter(connection.scalars(select(t.job.c.state)))
    assert engines == ["active"]
    assert states == {"done": len(sent)}
    assert {count for _, count in per_job} == {1}


@pytest.mark.parametrize(("crashed", "blame"), [("", KILLED), ("1", CRASHED)])
def test_restarted_worker_judges_its_previous_jobs_at_once(
    crashed, blame, postgresql_url, weights, tmp_path, monkeypatch
):
    monkeypatch.setenv(application.OWNER, "worker")
    monkeypatch.setenv(application.CRASHED, crashed)
    data, config = tmp_path / "data", ServiceConfig(run=RUN, reserve_bytes=0)
    with application.opened(data, weights, config, database=postgresql_url) as service:
        own = service.engines.owner
    database = Database(postgresql_url)
    picture = raster(paint({"hand": 0.9}, {"hand": 0.1}), "PNG")
    for n, owner in enumerate((own, "another")):
        arrival = Arrival(Blobs(data, 0).store(picture + bytes(n)), "a.png", "http", "test")
        database.write(partial(arrivals.receive, arrival=arrival, is_stored=lambda _: True))
        database.write(partial(job_queue.claim, engine=1, owner=owner, count=1))

    def jobs():
        with database.read() as connection:
            rows = connection.execute(select(t.job).order_by(t.job.c.id)).all()
        return [(row.state, row.owner, row.blame) for row in rows]

    with application.opened(data, weights, config, database=postgresql_url):
        until(lambda: jobs()[0][0] == "done", "the job is not judged")
    assert jobs() == [("done", own, blame), ("taken", "another", 0)]
    database.close()


def test_restarted_process_has_the_name_of_the_previous_one(weights, tmp_path):
    def name():
        (pid,) = family(service.pid)[1:2]
        variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
        return next(one for one in variables if one.startswith(f"{application.OWNER}="))

    with ServiceProcess(tmp_path / "data", weights) as service:
        first = name()
        assert service.kill_service()
        service.wait_ready()
        assert name() == first
    assert len(first) > len(application.OWNER) + 8


def store_waiting(database):
    """Number of jobs not taken by any process."""
    with database.read() as connection:
        active = engine_state.active_engine(connection)
        return 0 if active is None else job_queue.waiting(connection, active.id)


def test_roles_need_postgresql(tmp_path):
    words = ["serve", "--data", str(tmp_path), "--no-browser"]
    result = CliRunner().invoke(main, [*words, "--roles", "work"])
    assert result.exit_code == 2
    assert "SQLite is used by a single process" in result.output
    result = CliRunner().invoke(main, [*words, "--roles", "work,other"])
    assert result.exit_code == 2
    assert "expected one or more of web, dicom, send, work" in result.output
