"""Counts results and sent objects of acknowledged pictures, and errors among them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dicom_service import ask, until
from sqlalchemy import Connection, func, inspect, select, update

from pipeline.service import tables as t
from pipeline.service.blobs import Blobs
from pipeline.service.database import DATABASE, Database, read_only

_OBJECTS = {"positive": 3, "uncertain": 3, "negative": 1}
"""Objects per picture by answer: a report; with a finding, also an overlay and its marks."""


@contextmanager
def _reading(url: str) -> Iterator[Connection]:
    database = Database(url)
    try:
        with database.read() as connection:
            yield connection
    finally:
        database.close()


def _none(url: str, patience_s: float, count: Callable[[Connection], int]) -> None:
    """Wait until a count is 0."""

    def is_none() -> bool:
        with _reading(url) as connection:
            return count(connection) == 0

    until(is_none, patience_s)


def wait_until_judged(url: str, patience_s: float) -> None:
    """Wait until no job is waiting or taken."""
    open_jobs = select(func.count()).where(t.job.c.state.in_(("waiting", "taken")))
    _none(url, patience_s, lambda c: c.scalar(open_jobs) or 0)


def wait_until_sent(url: str, patience_s: float) -> None:
    """Wait until all studies are stable and the outbox has no unsent objects."""
    unstable = select(func.count()).where(t.study.c.stable_ms.is_(None))
    states = ("waiting", "sending", "committing")
    unsent = select(func.count()).where(t.outbox.c.state.in_(states))
    _none(url, patience_s, lambda c: (c.scalar(unstable) or 0) + (c.scalar(unsent) or 0))


def interrupted(data: Path) -> Counter[str]:
    """Work in progress when the only process was killed: ``while judging``, ``while sending``."""
    if not (data / DATABASE).exists():
        return Counter()
    with read_only(data / DATABASE) as connection:
        if not inspect(connection).has_table("outbox"):
            return Counter()
        judging = connection.scalar(select(t.job.c.id).where(t.job.c.state == "taken").limit(1))
        sending = t.outbox.c.state == "sending"
        being_sent = connection.scalar(select(t.outbox.c.id).where(sending).limit(1))
    found = {"while judging": judging, "while sending": being_sent}
    return Counter(name for name, one in found.items() if one is not None)


def end_leases(url: str) -> None:
    """End the leases of all jobs, including those of running processes."""
    database = Database(url)
    database.write(lambda c: c.execute(update(t.job).values(lease_ms=0)))
    database.close()


def received(url: str, data: Path, acknowledged: Mapping[str, int | None]) -> Counter[str]:
    """Count acknowledged pictures, and those without a file or with another number of results.

    ``lost`` pictures have no result, ``duplicates`` several; ``unknown`` pictures are in the
    worklist but were not acknowledged. ``most blame`` is the largest value of a job, see
    :data:`pipeline.service.job_queue.MOST_BLAME`.

    Args:
        url: URL of the database.
        data: The data folder.
        acknowledged: See :attr:`kill_senders.Senders.acknowledged`.
    """
    arrivals: dict[str, list[tuple[int, str]]] = defaultdict(list)
    results: dict[str, list[str]] = defaultdict(list)
    with _reading(url) as connection:
        columns = t.arrival.c.name, t.arrival.c.id, t.arrival.c.sha256
        for name, picture, sha256 in connection.execute(select(*columns)):
            arrivals[name].append((picture, sha256))
        for sha256, status in connection.execute(select(t.result.c.sha256, t.result.c.status)):
            results[sha256].append(status)
        attempts = connection.scalar(select(func.sum(t.job.c.attempt))) or 0
        blame = connection.scalar(select(func.max(t.job.c.blame))) or 0
        answers = Counter(connection.scalars(select(t.result.c.answer)))
    counts = Counter(acknowledged=len(acknowledged), lost=0, duplicates=0, without_file=0, failed=0)
    blobs = Blobs(data)
    for name, number in acknowledged.items():
        found = arrivals[name]
        if not found:
            counts["lost"] += 1
            continue
        counts["duplicates"] += len(found) > 1 or number not in (None, found[0][0])
        sha256 = found[0][1]
        counts["without_file"] += not blobs.exists(sha256)
        counts["lost"] += not results[sha256]
        counts["duplicates"] += len(results[sha256]) > 1
        counts["failed"] += "failed" in results[sha256]
    counts["unknown"] = len(arrivals.keys() - acknowledged.keys())
    counts["attempts"] = int(attempts)
    counts["most blame"] = int(blame)
    counts.update({f"{answer} results": number for answer, number in sorted(answers.items())})
    return counts


def sent(url: str, archive: int) -> Counter[str]:
    """Count objects of all studies, and those that are unsent, missing or surplus in an archive.

    Args:
        url: URL of the database.
        archive: HTTP port of Orthanc, which contains only objects from this service.
    """
    expected: Counter[str] = Counter()
    queued: dict[str, list[str]] = defaultdict(list)
    with _reading(url) as connection:
        study_of = t.study.c.id == t.arrival.c.study_id
        for uid, answer in connection.execute(
            select(t.study.c.uid, t.arrival.c.answer).join_from(t.arrival, t.study, study_of)
        ):
            expected[uid] += _OBJECTS[answer]
        study_of = t.study.c.id == t.outbox.c.study_id
        for uid, sop_uid in connection.execute(
            select(t.study.c.uid, t.outbox.c.object_uid).join_from(t.outbox, t.study, study_of)
        ):
            queued[uid].append(sop_uid)
        states = Counter(connection.scalars(select(t.outbox.c.state)))
    kept: dict[str, list[str]] = {}
    for study in ask(archive, "studies?expand"):
        instances = ask(archive, f"studies/{study['ID']}/instances")
        kept[study["MainDicomTags"]["StudyInstanceUID"]] = [
            one["MainDicomTags"]["SOPInstanceUID"] for one in instances
        ]
    counts = Counter(
        studies=len(expected), objects=expected.total(), unsent=states.total() - states["sent"],
        missing=0, surplus=0,
    )  # fmt: skip
    counts["in another study"] = 0
    for uid in expected.keys() | queued.keys() | kept.keys():
        here = kept.get(uid, [])
        counts["missing"] += max(0, expected[uid] - len(here))
        counts["surplus"] += max(0, len(here) - expected[uid])
        counts["in another study"] += len(set(queued[uid]) ^ set(here))
    return counts
