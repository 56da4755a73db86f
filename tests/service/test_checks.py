"""Service checks of ``fxpipe doctor --data``."""

from __future__ import annotations

import datetime
import gc
import os
import shutil
import socket
from collections import namedtuple
from contextlib import closing

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pynetdicom import AE, evt
from service_database import ENGINE
from sqlalchemy import insert, text

from pipeline import lock
from pipeline.cli import main
from pipeline.diagnosis import ServicePlan, Verdict
from pipeline.service import arrivals, checks, schema
from pipeline.service import tables as t
from pipeline.service.arrivals import Arrival
from pipeline.service.blobs import Blobs
from pipeline.service.checks import certificate_expiry, examine
from pipeline.service.database import Database, network_file_system, sqlite_url

Disk = namedtuple("Disk", "total used free")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    with closing(Database(sqlite_url(folder))) as database:
        schema.upgrade(database)
        database.write(lambda c: c.execute(insert(t.engine).values(**ENGINE)))
        content = Blobs(folder, 0).store(b"a")
        arrival = Arrival(content, "a.png", "http", "s")
        database.write(lambda c: arrivals.receive(c, arrival, lambda _: True))
    return folder


def findings(data, **options):
    plan = ServicePlan(data, **{"port": free_port(), **options})
    return {finding.topic: finding for finding in examine(plan)}


def change(data, line):
    with closing(Database(sqlite_url(data))) as database:
        database.write(lambda c: c.execute(text(line)))


def test_new_and_used_folders_pass(data, tmp_path):
    found = findings(tmp_path / "new")
    assert {finding.verdict for finding in found.values()} == {Verdict.OK}
    assert "does not exist yet" in found["database"].found
    assert not (tmp_path / "new").exists()
    found = findings(data)
    assert {finding.verdict for finding in found.values()} <= {Verdict.OK, Verdict.WARNING}
    assert found["database"].found == f"SQLite, version {schema.newest()}, writable"


def test_port_in_use_by_another_program_is_a_fault(data):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert findings(data, port=port)["port"].verdict is Verdict.FAULT
        with lock.exclusive(data):
            assert findings(data, port=port)["port"].verdict is Verdict.OK
            assert lock.is_held(data)
    assert not lock.is_held(data)
    assert findings(data, port=port)["port"].verdict is Verdict.OK


def test_the_disk_of_the_data_folder(data, monkeypatch):
    for free, verdict in ((1 << 20, "fault"), (1 << 30, "warning"), (1 << 40, "ok")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: Disk(0, 0, free))
        finding = findings(data)["data"]
        assert finding.verdict == verdict
        assert bool(finding.advice) is (verdict != "ok")
    monkeypatch.setattr(os, "access", lambda path, _: path != data)
    assert findings(data)["data"].verdict is Verdict.FAULT


def test_sqlite_on_a_network_share_is_a_fault(data, monkeypatch, tmp_path):
    assert network_file_system(tmp_path) is None
    monkeypatch.setattr(checks, "network_file_system", lambda _: "nfs4")
    finding = findings(data)["data"]
    assert finding.verdict is Verdict.FAULT
    assert "nfs4" in finding.found


def test_newer_and_damaged_databases_are_faults(data):
    change(data, "UPDATE alembic_version SET version_num = '9999'")
    finding = findings(data)["database"]
    assert finding.verdict is Verdict.FAULT
    assert "version 9999" in finding.found
    for path in data.glob("fxpipe.sqlite*"):
        path.write_bytes(b"x" * 5000)
    assert findings(data)["database"].verdict is Verdict.FAULT


def test_missing_files_of_the_database_are_a_fault(data):
    shutil.rmtree(data / "blobs")
    assert findings(data)["files"].verdict is Verdict.FAULT


def test_postgresql(tmp_path, postgresql_url):
    found = findings(tmp_path, database=postgresql_url)
    assert "the next start upgrades it" in found["database"].found
    with closing(Database(postgresql_url)) as database:
        schema.upgrade(database)
    found = findings(tmp_path, database=postgresql_url)
    assert found["database"].found.startswith("PostgreSQL, version")
    found = findings(tmp_path, database="postgresql+psycopg://x@/x?host=/nowhere")
    assert found["database"].verdict is Verdict.FAULT


def certificate(folder, days, key=None):
    """Write a self-signed certificate and its key."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(days=400))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    pem = serialization.Encoding.PEM
    (folder / "c.pem").write_bytes(made.public_bytes(pem))
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "k.pem").write_bytes(key.private_bytes(pem, pkcs8, plain))
    return folder / "c.pem", folder / "k.pem"


@pytest.mark.parametrize(("days", "verdict"), [(100, "ok"), (10, "warning"), (-1, "fault")])
def test_the_certificate(data, tmp_path, days, verdict):
    file, key = certificate(tmp_path / "tls", days)
    finding = findings(data, certificate=file, key=key)["TLS"]
    assert finding.verdict == verdict
    if days > 0:
        expected = datetime.datetime.now() + datetime.timedelta(days=days)
        assert abs(certificate_expiry(file, key) - expected.timestamp()) < 100
    else:
        assert "expired" in finding.found


def test_key_of_another_certificate_is_a_fault(data, tmp_path):
    file, _ = certificate(tmp_path / "a", 100)
    _, key = certificate(tmp_path / "b", 100)
    for words in ((file, key), (tmp_path / "none", key), (key, key)):
        finding = findings(data, certificate=words[0], key=words[1])["TLS"]
        assert finding.verdict is Verdict.FAULT, words
        assert finding.advice


def peer(data, port, title="PACS"):
    values = {
        "title": title, "host": "127.0.0.1", "port": port, "receive": False, "send": True,
        "tls": False, "created_ms": 0,
    }  # fmt: skip
    with closing(Database(sqlite_url(data))) as database:
        database.write(lambda c: c.execute(insert(t.peer).values(**values)))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_peers_get_an_echo(data):
    """pynetdicom leaves the socket of a refused connection to the garbage collector."""
    statuses = iter((0x0000, 0x0122))
    entity = AE(ae_title="PACS")
    entity.add_supported_context("1.2.840.10008.1.1")  # Verification
    server = entity.start_server(
        ("127.0.0.1", 0), block=False,
        evt_handlers=[(evt.EVT_C_ECHO, lambda _: next(statuses))],
    )  # fmt: skip
    try:
        peer(data, server.server_address[1])
        finding = findings(data)["peer PACS"]
        assert (finding.verdict, finding.found.split()[-2:]) == (Verdict.OK, ["answers", "C-ECHO"])
        assert findings(data)["peer PACS"].verdict is Verdict.WARNING
    finally:
        server.shutdown()
    finding = findings(data)["peer PACS"]
    assert finding.verdict is Verdict.WARNING
    assert "does not answer" in finding.found
    assert "AE title FXPIPE" in finding.advice
    gc.collect()


def test_the_command_shows_the_checks(data, tmp_path):
    words = ["doctor", "--weights", str(tmp_path / "none"), "--data", str(data)]
    result = CliRunner().invoke(main, [*words, "--port", str(free_port())])
    assert result.exit_code == 3  # the weights are missing
    assert "`fxpipe serve` cannot start here" in result.stdout
    assert "SQLite, version" in result.stdout
