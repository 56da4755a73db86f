"""Operation of a service: client, watched folder, metrics, backup, restore."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest
from bundles import write_png
from click.testing import CliRunner
from tiny_networks import write_bundles

from pipeline.cli import main
from pipeline.service.blobs import Blobs

ROOT = Path(__file__).parents[2]
WAIT_S = 120.0


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_bundles(tmp_path_factory.mktemp("weights"))


@contextmanager
def served(data, weights, *words):
    """A running service; its address."""
    command = ["serve", "--data", data, "--weights", weights, "--port", "0", "--no-browser",
               "--set", "run.workers=1", *words]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *map(str, command)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        line = next(line for line in process.stdout if line.startswith("fxpipe listens on "))
        yield line.split()[-1].rstrip("/")
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def fxpipe(*words):
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def example():
    """The client of the documentation."""
    page = (ROOT / "docs/service.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return code


def figure(url, name):
    with urllib.request.urlopen(f"{url}/metrics", timeout=WAIT_S) as response:
        text = response.read().decode()
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE).group(1))


def test_from_the_first_picture_to_a_restored_backup(tmp_path, weights, monkeypatch):
    data, inbox = tmp_path / "data", tmp_path / "inbox"
    inbox.mkdir()
    with served(data, weights, "--watch", inbox) as url:
        token = fxpipe("token", "create", "--data", data, "--role", "sender").splitlines()[-1]
        monkeypatch.chdir(tmp_path)
        write_png(tmp_path / "samples/IMG0001380.jpg", {"hand": 0.9}, {"hand": 0.9})
        output = io.StringIO()
        with redirect_stdout(output):
            exec(compile(example(), "docs/service.md", "exec"), {"URL": url, "TOKEN": token})
        assert output.getvalue().startswith("answered positive 0.9")

        write_png(inbox / "monday/b.png", {"hand": 0.9}, {"hand": 0.1})
        deadline = time.monotonic() + WAIT_S
        while figure(url, 'fxpipe_pictures_judged_total{answer="negative"}') < 1:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert figure(url, 'fxpipe_pictures_received_total{source="watch"}') == 1
        assert figure(url, 'fxpipe_pictures_received_total{source="http"}') == 1
        assert figure(url, "fxpipe_judging_seconds_count") == 2

        fxpipe("backup", "--data", data, "--to", tmp_path / "backup")
        assert "entries" in fxpipe("audit-log", "verify", "--data", data)
        result = CliRunner().invoke(
            main, ["restore", "--from", str(tmp_path / "backup"), "--data", str(data)]
        )
        assert result.exit_code == 2
    fxpipe("restore", "--from", tmp_path / "backup", "--data", tmp_path / "new", "--check")
    assert set(Blobs(tmp_path / "new", 0).all()) == set(Blobs(data, 0).all())
    with served(tmp_path / "new", weights) as url:
        assert figure(url, 'fxpipe_pictures_judged_total{answer="positive"}') == 1
        request = urllib.request.Request(
            f"{url}/api/v1/pictures/1", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=WAIT_S) as response:
            assert b'"answer":"positive"' in response.read()


def test_the_client_of_the_documentation_is_short():
    lines = [
        line for line in example().splitlines() if line and not line.startswith(("import", "from"))
    ]
    assert len(lines) <= 10


@pytest.mark.parametrize("setup", [["set up: http://x/#setup=1"], []])
def test_browser_opens_one_address(tmp_path, monkeypatch, setup):
    opened: list[str] = []
    lines = [*setup, "fxpipe listens on http://x/"]

    def supervise(words, line):
        for text in [*lines, lines[-1]]:  # the last one again after a restart
            line(text)
        return 0

    monkeypatch.setattr("pipeline.service.supervisor.supervise", supervise)
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.delenv("FXPIPE_SUPERVISED", raising=False)
    fxpipe("serve", "--data", tmp_path)
    assert opened == [lines[0].split()[-1]]
