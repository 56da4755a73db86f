"""A running service and a browser for the tests of its page."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
from bundles import paint
from PIL import Image

ROOT = Path(__file__).parents[1]

PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class Served:
    """A service in a subprocess.

    Attributes:
        data: Its data folder.
        address: URL of the page.
        setup: Set-up link with its one-time code.
        token: Bearer token of an administrator.
    """

    data: Path
    address: str
    setup: str
    token: str

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Make a request of the API with the token, and return its JSON."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind, **headers}
        answer = httpx.request(
            method, f"{self.address}api/v1{path}", content=content, headers=headers, timeout=60
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def upload(self, content: bytes, name: str = "picture.png") -> int:
        """Upload a picture and return its number."""
        disposition = f"attachment; filename*=UTF-8''{quote(name)}"
        headers = {"Content-Disposition": disposition}
        return int(self.request("POST", "/pictures", content, **headers)["id"])


@contextmanager
def serving(data: Path, weights: Path, *words: str) -> Iterator[Served]:
    """Run a service until the end of the block."""
    command = [sys.executable, "-m", "pipeline.cli"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    serve = [*command, "serve", "--data", str(data), "--weights", str(weights), "--port", "0"]
    process = subprocess.Popen(
        [*serve, "--no-browser", *words], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env=environment,
    )  # fmt: skip
    try:
        address, setup = _announced(process)
        token = subprocess.run(
            [*command, "token", "create", "--data", str(data), "--role", "admin"],
            check=True, capture_output=True, text=True, cwd=ROOT, env=environment,
        ).stdout.split()[-1]  # fmt: skip
        yield Served(data, address, setup, token)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def _announced(process: subprocess.Popen[str]) -> tuple[str, str]:
    assert process.stdout is not None
    link = ""
    for line in process.stdout:
        if found := re.match(r"set up: (\S+)", line):
            link = found[1]
        elif found := re.match(r"fxpipe listens on (\S+)", line):
            return found[1], link
    raise AssertionError("the service ended before it listened")


def painted(number: int, *, positive: bool = True, size_px: int = 64) -> bytes:
    """A PNG of a hand for the tiny weights, different for each number."""
    pixels = paint({"hand": 0.9}, {"hand": 0.8 if positive else 0.05}, size_px)
    pixels[-1, size_px // 2] = number % 256
    pixels[-1, size_px // 2 + 1] = number // 256
    return png(pixels)


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of grey values."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
