"""Clients that load a service: uploads, requests for results, and the pictures that they send."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from service_process import ServiceProcess

SAMPLES = Path(__file__).parents[1] / "samples"
_EXCLUDED = {"IMG0004119.jpg", "IMG0000221.jpg"}
"""A truncated file, and a region that is not supported."""
_SMALL_PX = 320
TIMEOUT_S = 300.0


def samples() -> list[Path]:
    """The sample pictures that get a verdict."""
    return [path for path in sorted(SAMPLES.glob("*.jpg")) if path.name not in _EXCLUDED]


def copy(number: int) -> bytes:
    """A sample with the same pixels and another digest: the number is a comment of the JPEG."""
    paths = samples()
    content = paths[number % len(paths)].read_bytes()
    comment = f"copy {number}".encode()
    segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
    return content[:2] + segment + content[2:]


def small(number: int) -> bytes:
    """A small version of a sample with noise, of about 10 kB."""
    paths = samples()
    with Image.open(paths[number % len(paths)]) as picture:
        picture.draft("L", (_SMALL_PX, _SMALL_PX))
        grey = picture.convert("L")
    grey.thumbnail((_SMALL_PX, _SMALL_PX))
    noise = np.random.default_rng(number).integers(-2, 3, (grey.height, grey.width))
    pixels = np.clip(np.asarray(grey, np.int16) + noise, 0, 255).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def headers(token: str, key: str | None = None) -> dict[str, str]:
    """Headers of a request, and of an upload with an idempotency key."""
    made = {"Authorization": f"Bearer {token}"}
    if key is not None:
        made["Idempotency-Key"] = key
        made["Content-Disposition"] = f'attachment; filename="{key}.jpg"'
    return made


def upload_at_once(
    service: ServiceProcess, token: str, contents: Sequence[bytes], label: str
) -> tuple[list[int], Counter[str]]:
    """Send all contents, each in a connection of its own that is open from the beginning.

    A request that is answered with 429 is repeated after ``Retry-After`` seconds.

    Returns:
        Numbers of the pictures, and counts of the answers by status, of 429 without Retry-After
        (``no Retry-After``), and of connections that failed (``no answer``).
    """
    return asyncio.run(_upload_at_once(service, token, contents, label))


async def _upload_at_once(
    service: ServiceProcess, token: str, contents: Sequence[bytes], label: str
) -> tuple[list[int], Counter[str]]:
    counts: Counter[str] = Counter()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=len(contents))
    async with httpx.AsyncClient(base_url=service.url, limits=limits, timeout=TIMEOUT_S) as client:

        async def send(place: int) -> int:
            key = f"{label}-{place}"
            while True:
                try:
                    answer = await client.post(
                        "/api/v1/pictures", content=contents[place], headers=headers(token, key)
                    )
                except httpx.TransportError:
                    counts["no answer"] += 1
                    await asyncio.sleep(0.1)
                    continue
                counts[str(answer.status_code)] += 1
                if answer.status_code in (200, 201):
                    return int(answer.json()["id"])
                if answer.status_code != 429 and answer.status_code < 500:
                    raise AssertionError(answer.text)
                if answer.status_code == 429 and "Retry-After" not in answer.headers:
                    counts["no Retry-After"] += 1
                await asyncio.sleep(float(answer.headers.get("Retry-After", 1.0)))

        return list(await asyncio.gather(*map(send, range(len(contents))))), counts


def unfinished(data: Path) -> int:
    """Number of jobs that are not finished."""
    address = f"file:{data}/fxpipe.sqlite?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as connection:
        query = "SELECT count(*) FROM job WHERE state IN ('waiting', 'taken')"
        return int(connection.execute(query).fetchone()[0])


def wait_until_judged(data: Path, seconds: float = 600.0) -> None:
    """Wait until no job is left."""
    deadline = time.monotonic() + seconds
    while left := unfinished(data):
        assert time.monotonic() < deadline, f"{left} jobs are not finished"
        time.sleep(0.1)


@contextmanager
def connected(service: ServiceProcess, token: str) -> Iterator[httpx.Client]:
    """A client with one connection that stays open."""
    with httpx.Client(
        base_url=f"{service.url}/api/v1", headers=headers(token), timeout=60.0
    ) as one:
        yield one


def send(client: httpx.Client, content: bytes, key: str) -> int:
    """Upload one file; return its number."""
    extra = {"Idempotency-Key": key, "Content-Disposition": f'attachment; filename="{key}.jpg"'}
    answer = client.post("/pictures", content=content, headers=extra)
    assert answer.status_code in (200, 201), answer.text
    return int(answer.json()["id"])
