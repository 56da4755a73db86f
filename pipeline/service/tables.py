"""The tables of the service's database.

Times are milliseconds since 1970 in UTC. Pictures are stored as files, see :mod:`.blobs`; the
database refers to them by SHA-256.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
_ID = BigInteger().with_variant(Integer, "sqlite")


def _id() -> Column[int]:
    return Column("id", _ID, primary_key=True, autoincrement=True)


def _reference(name: str, target: str, nullable: bool = False) -> Column[int]:
    return Column(name, _ID, ForeignKey(target), nullable=nullable)


def _index(name: str, condition: str, *columns: str) -> Index:
    """An index of the rows that meet a condition, for :mod:`.pages`.

    Without statistics, SQLite takes the index that has the most columns with a given value: that
    of the study, then of the region, then of the review.
    """
    where = text(condition)
    return Index(f"ix_{name}", *columns, sqlite_where=where, postgresql_where=where)


blob = Table(
    "blob",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("held", Boolean, nullable=False, default=False),
    Column("deleted_ms", BigInteger),
)
"""Content of a received file. ``held`` is a legal hold, which prevents deletion."""

study = Table(
    "study",
    metadata,
    _id(),
    Column("key", String(128), nullable=False, unique=True),
    Column("uid", String(64)),
    Column("identity", JSON),
    Column("last_seen_ms", BigInteger, nullable=False),
    Column("stable_ms", BigInteger),
    Column("pictures", Integer, nullable=False, default=0),
    Column("rank", Integer, nullable=False, default=0),
    Index(None, "stable_ms", "last_seen_ms"),
    _index("study_urgency", "pictures > 0", "rank", "id"),
    _index("study_newest", "pictures > 0", "last_seen_ms", "id"),
)
"""DICOM studies. ``stable_ms`` is set when no picture has arrived for some time.

``pictures`` is the number of pictures, ``rank`` the rank of the most urgent one. If all pictures
are deleted, UID and identity are deleted too.
"""

arrival = Table(
    "arrival",
    metadata,
    _id(),
    Column("sha256", String(64), ForeignKey("blob.sha256"), nullable=False),
    Column("name", String(1024), nullable=False),
    Column("source", String(16), nullable=False),
    Column("sender", String(128), nullable=False),
    Column("key", String(255)),
    Column("received_ms", BigInteger, nullable=False),
    _reference("study_id", "study.id", nullable=True),
    _reference("engine_id", "engine.id", nullable=True),
    Column("state", String(16), nullable=False),
    Column("rank", Integer, nullable=False),
    Column("answer", String(16)),
    Column("region", String(32)),
    Column("probability", Float),
    Column("review", String(16)),
    Column("deleted_ms", BigInteger),
    UniqueConstraint("sender", "key"),
    Index(None, "sha256"),
    Index(None, "study_id", "deleted_ms", "rank", "id"),
    Index(None, "received_ms"),
    Index(None, "region", "deleted_ms", "rank", "id", "review"),
    _index("arrival_urgency", "deleted_ms IS NULL", "rank", "id"),
    _index("arrival_reviewed", "review IS NOT NULL", "deleted_ms", "rank", "id"),
    _index("arrival_unreviewed", "review IS NULL", "deleted_ms", "rank", "id"),
)
"""A received picture, a row of the worklist.

``source`` is ``http``, ``dicom`` or ``watch``. ``key`` is the idempotency key of its sender. The
state is ``waiting``, ``reading``, ``answered``, ``unsupported``, ``failed`` or ``deleted``. Rank
(0 is most urgent), answer, region and probability are those of its most urgent result by
``engine_id``: the active engine, or an earlier one if the active engine has not judged the picture.
``review`` is the latest verdict of the readers, or ``disputed`` if they disagree.
"""

engine = Table(
    "engine",
    metadata,
    _id(),
    Column("digest", String(64), nullable=False, unique=True),
    Column("weights", Text, nullable=False),
    Column("digests", JSON, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("version", String(64), nullable=False),
    Column("card", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
"""Weights with settings. The state is ``active`` (one), ``candidate`` or ``retired``; ``card`` is
the published figures of the weights (:mod:`.engine_card`)."""

job = Table(
    "job",
    metadata,
    _id(),
    Column("sha256", String(64), ForeignKey("blob.sha256"), nullable=False),
    _reference("engine_id", "engine.id"),
    Column("name", String(1024), nullable=False),
    Column("state", String(16), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("attempt", Integer, nullable=False, default=0),
    Column("blame", Integer, nullable=False, default=0),
    Column("owner", String(64)),
    Column("lease_ms", BigInteger),
    Column("error", Text),
    Column("created_ms", BigInteger, nullable=False),
    Column("finished_ms", BigInteger),
    UniqueConstraint("sha256", "engine_id"),
    Index(None, "engine_id", "state", "priority", "id"),
    Index(None, "engine_id", "state", "id"),
)
"""One file to judge with one engine: ``waiting``, ``taken``, ``done`` or ``cancelled``.

``attempt`` counts the claims and is the fencing token of the result. ``blame`` increases each
time that a process ends while judging this job; see :data:`.job_queue.MOST_BLAME`.
"""

result = Table(
    "result",
    metadata,
    _id(),
    _reference("job_id", "job.id"),
    Column("sha256", String(64), nullable=False),
    _reference("engine_id", "engine.id"),
    Column("frame", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("answer", String(16), nullable=False),
    Column("region", String(32)),
    Column("probability", Float),
    Column("rank", Integer, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    UniqueConstraint("job_id", "frame"),
    Index(None, "sha256", "engine_id"),
    Index(None, "engine_id", "created_ms"),
)
"""The outcome of one picture; ``frame`` is -1 for a single-frame file."""

detail = Table(
    "detail",
    metadata,
    Column("result_id", _ID, ForeignKey("result.id"), primary_key=True),
    Column("outcome", JSON, nullable=False),
    Column("row", JSON, nullable=False),
)
"""Details of a result: the outcome (:mod:`pipeline.outcome_json`) and its row on the page."""

review = Table(
    "review",
    metadata,
    _id(),
    _reference("result_id", "result.id"),
    _reference("reader_id", "user.id"),
    Column("blind", Boolean, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("region", String(32)),
    Column("marks", JSON, nullable=False),
    Column("comment", Text, nullable=False),
    _reference("supersedes", "review.id", nullable=True),
    Column("created_ms", BigInteger, nullable=False),
    Index(None, "result_id", "reader_id", "id"),
    Index(None, "reader_id", "id"),
)
"""Verdicts of readers; rows are only appended."""

peer = Table(
    "peer",
    metadata,
    _id(),
    Column("title", String(16), nullable=False),
    Column("host", String(255), nullable=False),
    Column("port", Integer),
    Column("receive", Boolean, nullable=False),
    Column("send", Boolean, nullable=False),
    Column("tls", Boolean, nullable=False),
    Column("commitment", Boolean, nullable=False, default=False),
    Column("created_ms", BigInteger, nullable=False),
    UniqueConstraint("title", "host"),
)
"""DICOM nodes. ``receive``: may send pictures; ``send``: receives results.

``commitment``: storage commitment is requested."""

caller = Table(
    "caller",
    metadata,
    _id(),
    Column("title", String(16), nullable=False),
    Column("host", String(64), nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("count", Integer, nullable=False),
    UniqueConstraint("title", "host"),
)
"""DICOM nodes with rejected associations, because no peer has their title and address."""

instance = Table(
    "instance",
    metadata,
    _id(),
    Column("sha256", String(64), ForeignKey("blob.sha256"), nullable=False, unique=True),
    Column("study_uid", String(64), nullable=False),
    Column("series_uid", String(64), nullable=False),
    Column("sop_uid", String(64), nullable=False),
    Column("sop_class", String(64), nullable=False),
    Column("modality", String(16), nullable=False),
    Column("patient_id", String(64), nullable=False),
    Column("patient_name", String(256), nullable=False),
    Column("accession", String(64), nullable=False),
    Column("study_date", String(8), nullable=False),
    Column("study_time", String(16), nullable=False),
    Column("study_id", String(64), nullable=False),
    Column("header", JSON, nullable=False),
    Index(None, "study_uid", "series_uid"),
    Index(None, "series_uid"),
    Index(None, "sop_uid"),
    Index(None, "patient_id"),
    Index(None, "accession"),
    Index(None, "study_date"),
)
"""Headers of the received DICOM files, for queries; ``header`` is DICOM JSON.

The patient's name is in upper case. A row exists as long as the content of its file."""

outbox = Table(
    "outbox",
    metadata,
    _id(),
    Column("object_uid", String(64), nullable=False),
    _reference("peer_id", "peer.id"),
    _reference("study_id", "study.id"),
    Column("sha256", String(64), nullable=False),
    Column("source", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("tries", Integer, nullable=False, default=0),
    Column("next_ms", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("transaction_uid", String(64)),
    Column("committed_ms", BigInteger),
    Column("error", Text),
    UniqueConstraint("object_uid", "peer_id"),
    Index(None, "state", "next_ms"),
    Index(None, "peer_id", "study_id"),
    Index(None, "sha256"),
    Index(None, "source"),
    Index(None, "transaction_uid"),
)
"""DICOM objects for a peer. ``source`` is the SHA-256 of the picture.

The state is ``waiting``, ``sending``, ``committing`` (received, and not yet confirmed), ``sent``,
``failed`` (permanently refused) or ``attention`` (attempts ended after days). ``next_ms`` is the
time of the next attempt, or from which another process may take it over. ``transaction_uid``
belongs to the storage commitment request. The content is kept until all peers have it."""

event = Table(
    "event",
    metadata,
    _id(),
    Column("kind", String(32), nullable=False),
    Column("subject", _ID),
    Column("data", JSON, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)
"""Changes, in order, for open pages."""

audit = Table(
    "audit",
    metadata,
    _id(),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(128), nullable=False),
    Column("detail", JSON, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)
"""Log of user actions; each row contains the hash of the previous row."""

user = Table(
    "user",
    metadata,
    _id(),
    Column("name", String(128), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("password", String(255), nullable=False),
    Column("active", Boolean, nullable=False, default=True),
    Column("blind", Boolean, nullable=False, default=False),
    Column("created_ms", BigInteger, nullable=False),
)
"""People. ``blind``: fxpipe's answer is hidden until the reader has stored a verdict."""

session = Table(
    "session",
    metadata,
    Column("hash", String(64), primary_key=True),
    _reference("user_id", "user.id"),
    Column("created_ms", BigInteger, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
)
"""Logins, by the SHA-256 of their token."""

token = Table(
    "token",
    metadata,
    _id(),
    Column("hash", String(64), nullable=False, unique=True),
    Column("name", String(128), nullable=False),
    Column("role", String(16), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
)
"""Bearer tokens of programs, by their SHA-256."""

rule = Table(
    "rule",
    metadata,
    _id(),
    Column("days", Integer, nullable=False),
    Column("state", String(16)),
    Column("created_ms", BigInteger, nullable=False),
)
"""Retention: pictures older than ``days`` are deleted, optionally of one state only."""

watched = Table(
    "watched",
    metadata,
    Column("path", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("changed_ns", BigInteger, nullable=False),
    Column("sha256", String(64)),
    Index(None, "sha256"),
)
"""Files received from watched folders, by the SHA-256 of their path.

``changed_ns`` is the modification time. ``sha256`` is the digest of the content; null for a file
that is too large.
"""

setting = Table(
    "setting",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", JSON, nullable=False),
)
"""Single values, such as the hash of the set-up code."""
