"""``fxpipe weights install URL``."""

from __future__ import annotations

import hashlib
import http.server
import threading
from pathlib import Path

import pytest
from weights_commands import pack, run

from pipeline.weights import fetch
from pipeline.weights import pack as packing

HEX = "0" * 64


@pytest.fixture
def served(place):
    """Address of a local HTTP server for the working folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            if self.path == "/away":
                self.send_response(302)
                self.send_header("Location", "/w.zip")
                self.end_headers()
            elif self.path == "/cut":
                self.send_response(200)
                self.send_header("Content-Length", "999999")
                self.end_headers()
                self.wfile.write(b"PK")
            else:
                super().do_GET()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_pack_is_downloaded_from_a_url(served, place):
    pack()
    digest = hashlib.sha256(Path("w.zip").read_bytes()).hexdigest()
    plain = run("install", f"{served}/w.zip", "--to", "new")
    assert (plain.exit_code, "expected https" in plain.stderr) == (2, True)
    wrong = run("install", f"{served}/w.zip", "--to", "new", "--sha256", HEX)
    assert wrong.exit_code == 3, wrong.output
    for path in ("nothing", "cut"):
        away = run("install", f"{served}/{path}", "--to", "new", "--sha256", digest)
        assert (away.exit_code, f"{path}: " in away.stderr) == (3, True), away.output
    assert not Path("new").exists()
    for turn, path in enumerate(("w.zip", "away")):
        right = run("install", f"{served}/{path}", "--to", f"new{turn}", "--sha256", digest)
        assert right.exit_code == 0, right.output


def test_download_stops_at_the_size_limit(served, place, monkeypatch):
    pack()
    monkeypatch.setattr(packing, "MOST_BYTES", 1000)
    result = run("install", f"{served}/w.zip", "--to", "new", "--sha256", HEX)
    assert result.exit_code == 3
    assert "expected at most 1000" in result.stderr


def test_https_is_not_redirected_to_http():
    import urllib.error
    import urllib.request

    request = urllib.request.Request("https://example.invalid/w.zip")
    with pytest.raises(urllib.error.URLError, match="https only"):
        fetch.HttpsOnly().redirect_request(request, None, 302, "", {}, "http://example.invalid/x")
