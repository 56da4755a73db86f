"""Senders for tests that kill a service; they repeat each picture until it is acknowledged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
from dicom_service import dcmtk
from factories import dicom, dicom_file
from numpy.typing import NDArray
from PIL import Image
from service_process import ServiceProcess

IN_STUDY = 3
"""Number of DICOM pictures per study."""
_PAUSE_S = 0.1

Deliver = Callable[[Mapping[str, bytes]], Mapping[str, int | None]]


@dataclass
class Senders:
    """Clients that send different pictures and repeat each one until it is acknowledged.

    Args:
        make: Returns name and content of the picture with a given number.
        deliver: Sends contents by name; returns the acknowledged names with the number of the
            picture in the service, or None if the answer does not contain it.
        together: Pictures per delivery.
        pause_s: Pause of a client after each delivery, in seconds.

    Attributes:
        acknowledged: What ``deliver`` returned so far.
    """

    make: Callable[[int], tuple[str, bytes]]
    deliver: Deliver
    together: int = 1
    pause_s: float = _PAUSE_S
    acknowledged: dict[str, int | None] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _errors: list[BaseException] = field(default_factory=list)
    _count: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, clients: int) -> None:
        """Start sending."""
        for _ in range(clients):
            thread = threading.Thread(target=self._run, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop sending new pictures, after all pending ones are acknowledged.

        Raises:
            AssertionError: An answer was neither success nor *try again later*.
        """
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._send(self._new())
        except BaseException as error:  # noqa: BLE001  (raised by `stop`)
            self._errors.append(error)

    def _new(self) -> dict[str, bytes]:
        with self._lock:
            numbers = range(self._count, self._count + self.together)
            self._count += self.together
        return dict(map(self.make, numbers))

    def _send(self, pictures: dict[str, bytes]) -> None:
        while pictures:
            done = self.deliver(pictures)
            with self._lock:
                assert not done.keys() & self.acknowledged.keys()
                self.acknowledged |= done
            pictures = {name: pictures[name] for name in pictures if name not in done}
            time.sleep(self.pause_s)


def by_http(service: ServiceProcess, token: str) -> Deliver:
    """Upload one picture per request; the name is the idempotency key."""

    def send(name: str, content: bytes) -> int | None:
        headers = {
            "Authorization": f"Bearer {token}", "Idempotency-Key": name,
            "Content-Disposition": f'attachment; filename="{name}"',
        }  # fmt: skip
        try:
            answer = httpx.post(
                f"{service.url}/api/v1/pictures", content=content, headers=headers, timeout=30.0
            )
        except httpx.TransportError:
            return None
        if answer.status_code in (200, 201):
            return int(answer.json()["id"])
        assert answer.status_code == 429, answer.text
        return None

    def deliver(pictures: Mapping[str, bytes]) -> Mapping[str, int | None]:
        sent = {name: send(name, content) for name, content in pictures.items()}
        return {name: number for name, number in sent.items() if number is not None}

    return deliver


def by_dicom(port: int, folder: Path) -> Deliver:
    """Send in one association with storescu of dcmtk, like a modality.

    Args:
        port: Port of the DICOM node.
        folder: A new folder for the files.
    """
    folder.mkdir()

    def deliver(pictures: Mapping[str, bytes]) -> Mapping[str, int | None]:
        for name, content in pictures.items():
            (folder / name).write_bytes(content)
        words = ("-v", "-aec", "FXPIPE", "127.0.0.1", str(port))
        output = dcmtk("storescu", *words, *(str(folder / n) for n in pictures), expected=None)
        done: dict[str, int | None] = {}
        name = ""
        for line in output.splitlines():
            if "Sending file: " in line:
                name = Path(line.rpartition("Sending file: ")[2]).name
            elif "Received Store Response (Success)" in line:
                done[name] = None
        return done

    return deliver


def noise(number: int) -> tuple[str, bytes]:
    """A small random picture, different for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (64, 64), np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"picture-{number}.png", file.getvalue()


def radiographs(pixels: NDArray[np.uint16]) -> Callable[[int], tuple[str, bytes]]:
    """DICOM files with the same pixels and different UIDs, :data:`IN_STUDY` per study.

    Args:
        pixels: (H, W) of 12 bits.
    """

    def make(number: int) -> tuple[str, bytes]:
        uid, study = f"2.25.{10**9 + number}", f"2.25.{2 * 10**9 + number // IN_STUDY}"
        ds = dicom(
            pixels, bits=12, SOPInstanceUID=uid, StudyInstanceUID=study,
            SeriesInstanceUID=f"{study}.1", InstanceNumber=number % IN_STUDY + 1,
            StudyDate="20240102", StudyTime="101112", AccessionNumber="A1",
        )  # fmt: skip
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        return f"{uid}.dcm", dicom_file(ds)

    return make
