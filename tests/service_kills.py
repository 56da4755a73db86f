"""Kills a service at random during uploads, and counts lost and duplicate pictures.

``python tests/service_kills.py --kills 200 --weights weights`` prints the counts.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from service_process import ServiceProcess, new_token


@dataclass
class Uploads:
    """Clients that send different pictures and repeat each one until it is acknowledged.

    Attributes:
        service: The service.
        token: Token of a sender.
        acknowledged: Number of the picture by idempotency key.
    """

    service: ServiceProcess
    token: str
    acknowledged: dict[str, int] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _number: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, clients: int) -> None:
        """Start sending."""
        for _ in range(clients):
            thread = threading.Thread(target=self._send_all, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop sending new pictures, after all pending ones are acknowledged."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send_all(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                self._number += 1
                number = self._number
            key = f"picture-{number}"
            content = picture(number)
            while (identifier := self._send(key, content)) is None:
                time.sleep(0.05)
            with self._lock:
                assert key not in self.acknowledged
                self.acknowledged[key] = identifier
            time.sleep(0.05)

    def _send(self, key: str, content: bytes) -> int | None:
        headers = {
            "Authorization": f"Bearer {self.token}", "Idempotency-Key": key,
            "Content-Disposition": f'attachment; filename="{key}.png"',
        }  # fmt: skip
        try:
            answer = httpx.post(
                f"{self.service.url}/api/v1/pictures", content=content, headers=headers,
                timeout=30.0,
            )  # fmt: skip
        except httpx.TransportError:
            return None
        if answer.status_code in (200, 201):
            return int(answer.json()["id"])
        assert answer.status_code == 429, answer.text
        return None


def picture(number: int) -> bytes:
    """A small picture that differs for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (64, 64), np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def run(data: Path, weights: Path, kills: int, seed: int = 0) -> Counter[str]:
    """Upload, kill and restart; return counts of errors, pictures and kills.

    Args:
        data: A new data folder.
        weights: Weights folder.
        kills: How often to kill.
        seed: Of the random moments.
    """
    rng = random.Random(seed)
    token = new_token(data, "sender")
    service = ServiceProcess(data, weights)
    uploads = Uploads(service, token)
    uploads.start(4)
    for _ in range(kills):
        service.start()
        if rng.random() < 0.8:  # some kills happen during the start
            service.wait_ready()
        time.sleep(rng.random() * 2.0)
        service.kill()
    service.start().wait_ready()
    uploads.stop()
    _wait_until_judged(data)
    assert service.stop() == 0
    counts = count(data, uploads.acknowledged)
    counts["kills"] = kills
    return counts


def _wait_until_judged(data: Path, seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with sqlite3.connect(data / "fxpipe.sqlite") as connection:
            (left,) = connection.execute(
                "SELECT count(*) FROM job WHERE state IN ('waiting', 'taken')"
            ).fetchone()
        if not left:
            return
        time.sleep(0.2)
    raise AssertionError(f"{left} jobs are not finished")


def count(data: Path, acknowledged: dict[str, int]) -> Counter[str]:
    """Acknowledged pictures, and those without a file, a result, or with several results."""
    counts = Counter(acknowledged=len(acknowledged), lost=0, doubled=0, without_file=0, failed=0)
    with sqlite3.connect(data / "fxpipe.sqlite") as connection:
        for key, number in acknowledged.items():
            rows = connection.execute(
                "SELECT a.id, a.sha256 FROM arrival a WHERE a.key = ?", (key,)
            ).fetchall()
            if [row[0] for row in rows] != [number]:
                counts["lost" if not rows else "doubled"] += 1
                continue
            sha256 = rows[0][1]
            if not (data / "blobs" / sha256[:2] / sha256).exists():
                counts["without_file"] += 1
            results = connection.execute(
                "SELECT status FROM result WHERE sha256 = ?", (sha256,)
            ).fetchall()
            counts["lost"] += not results
            counts["doubled"] += len(results) > 1
            counts["failed"] += any(status == "failed" for (status,) in results)
    return counts


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = run(Path(folder) / "data", given.weights.resolve(), given.kills, given.seed)
    print(", ".join(f"{name} {number}" for name, number in counts.items()))  # noqa: T201


if __name__ == "__main__":
    main()
