"""A service process with a DICOM node, and DICOM programs as peers."""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
from bundles import paint
from factories import dicom
from pydicom.uid import (
    ComprehensiveSRStorage,
    DigitalXRayImageStorageForPresentation,
    GrayscaleSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, DEFAULT_TRANSFER_SYNTAXES, evt

_CLASSES = (
    DigitalXRayImageStorageForPresentation, ComprehensiveSRStorage,
    GrayscaleSoftcopyPresentationStateStorage, SecondaryCaptureImageStorage,
)  # fmt: skip
PATIENCE_S = 180.0
T = TypeVar("T")


def found(name: str) -> str | None:
    """Path of a program, also searched in the folder of daemons."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(check: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
    """Wait until a check returns a true value, and return it."""
    end = time.monotonic() + patience_s
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < end, f"waited {patience_s:g} s, the last answer is {value!r}"
        time.sleep(0.1)


def fractured(number: int = 1, size_px: int = 64, **attributes: Any) -> Any:
    """A DICOM picture of a hand with a fracture, for the tiny networks, as a data set."""
    pixels = paint({"hand": 0.9}, {"hand": 0.9}, size_px).astype(np.uint16) * 16
    values = {
        "SOPInstanceUID": f"2.25.500{number}",
        "InstanceNumber": number,
        "StudyDate": "20240102",
        "StudyTime": "101112",
        "AccessionNumber": "A1",
        **attributes,
    }
    ds = dicom(pixels, bits=12, **values)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    return ds


@dataclass
class Running:
    """A service process.

    Attributes:
        process: Without a supervisor.
        url: Of the page.
        dicom_port: Of the node.
        data: Its folder.
        token: Of an administrator.
        log: File with its standard error.
    """

    process: subprocess.Popen[bytes]
    url: str
    dicom_port: int
    data: Path
    token: str
    log: Path
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=60
        )

    def get(self, path: str, **parameters: Any) -> Any:
        response = self.client.get(f"/api/v1{path}", params=parameters)
        assert response.status_code == 200, response.text
        return response.json()

    def post(self, path: str, body: Any = None, expected: int = 200) -> Any:
        response = self.client.post(f"/api/v1{path}", json=body)
        assert response.status_code == expected, response.text
        return response.json()

    def add_peer(self, **values: Any) -> int:
        body = {"host": "127.0.0.1", **values}
        return int(self.post("/peers", body, 201)["id"])

    def pictures(self) -> list[Any]:
        return list(self.get("/pictures", order="newest", limit=200)["pictures"])

    def judged(self, count: int) -> list[Any]:
        def done() -> list[Any]:
            shown = self.pictures()
            states = {one["state"] for one in shown}
            return shown if len(shown) >= count and not states & {"waiting", "reading"} else []

        return until(done)

    def outbox(self) -> list[Any]:
        return list(self.get("/outbox", limit=200)["objects"])

    def sent(self, count: int) -> list[Any]:
        def done() -> list[Any]:
            objects = self.outbox()
            states = [one["state"] for one in objects]
            return objects if len(objects) >= count and set(states) == {"sent"} else []

        return until(done)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def service(
    data: Path, weights: Path, *words: str, dicom_port: int = 0, **settings: Any
) -> Iterator[Running]:
    """A service on free ports, ended at the end of the block."""
    data.mkdir(exist_ok=True)
    values = {"stable_s": 0.5, "first_retry_s": 0.3, "most_retry_s": 1.0, "run.isolate": "false"}
    for key, value in settings.items():
        values[key.replace("__", ".")] = value
    command = [
        *(sys.executable, "-m", "pipeline.cli", "serve", "--data", str(data), "--port", "0"),
        *("--dicom-port", str(dicom_port), "--no-browser", "--weights", str(weights)),
        *(word for key, value in values.items() for word in ("--set", f"{key}={value}")),
        *words,
    ]
    log = data / "test.log"
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "FXPIPE_SUPERVISED": "1", "PYTHONPATH": root}
    token = subprocess.run(
        [
            *(sys.executable, "-m", "pipeline.cli", "token", "create"),
            *("--data", str(data), "--role", "admin"),
        ],
        capture_output=True, text=True, check=True, env=environment,
    ).stdout.split()[-1]  # fmt: skip
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment
        )
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None
    stream = process.stdout

    def read() -> None:
        for line in stream:
            lines.put(line.decode())

    threading.Thread(target=read, daemon=True).start()
    try:
        url, port = _addresses(process, lines, log)
        running = Running(process, url, port, data, token, log)
        yield running
        running.client.close()
    finally:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _addresses(
    process: subprocess.Popen[bytes], lines: queue.Queue[str], log: Path
) -> tuple[str, int]:
    url = ""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and process.poll() is None:
        with suppress(queue.Empty):
            line = lines.get(timeout=0.2)
            if line.startswith("fxpipe listens on "):
                url = line.split()[-1]
            elif match := re.match(r"DICOM node: .* port (\d+)", line):
                return url, int(match[1])
    raise AssertionError(f"the service did not start: {log.read_text()[-2000:]}")


def dcmtk(program: str, *words: str, expected: int | None = 0) -> str:
    """Run a program of dcmtk; its whole output."""
    done = subprocess.run(
        [str(found(program)), *words], capture_output=True, text=True, check=False, timeout=120
    )
    output = done.stdout + done.stderr
    if expected is not None:
        assert done.returncode == expected, output
    return output


def storescu(
    port: int, *files: Path | str, title: str = "MODALITY", expected: int | None = 0
) -> str:
    words = ("-v", "-aet", title, "-aec", "FXPIPE", "127.0.0.1", str(port))
    return dcmtk("storescu", *words, *map(str, files), expected=expected)


@contextmanager
def storescp(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """dcmtk's receiver, which writes to a folder."""
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [str(found("storescp")), "-aet", "ARCHIVE", "-od", str(folder), str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: _listens(port), 20)
        yield process
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def receiver(
    handle: Callable[[Any], int], port: int = 0, classes: Sequence[str] = (),
    syntaxes: Sequence[str] = (),
) -> Iterator[int]:  # fmt: skip
    """An archive of pynetdicom; its port.

    Args:
        handle: Gets each C-STORE and returns its status.
        port: 0 for a free one.
        classes: SOP classes that it takes; those of projection radiographs and of results when
            empty.
        syntaxes: Transfer syntaxes that it takes; the uncompressed ones when empty.
    """
    entity = AE(ae_title="ARCHIVE")
    for one in classes or _CLASSES:
        entity.add_supported_context(one, list(syntaxes) or DEFAULT_TRANSFER_SYNTAXES)
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, handle)]
    )
    try:
        yield server.socket.getsockname()[1]
    finally:
        entity.shutdown()


@contextmanager
def orthanc(folder: Path, modalities: dict[str, Any] | None = None) -> Iterator[tuple[int, int]]:
    """A new, empty archive; yields its HTTP and DICOM ports."""
    folder.mkdir(exist_ok=True)
    http, dimse = free_port(), free_port()
    config = {
        "Name": "fxpipe-test", "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"), "Plugins": [], "HttpPort": http,
        "DicomPort": dimse, "DicomAet": "ARCHIVE", "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False, "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowEcho": True, "DicomCheckCalledAet": False, "ConcurrentJobs": 1,
        "DicomModalities": modalities or {},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(config))
    with (folder / "orthanc.log").open("ab") as log:
        process = subprocess.Popen(
            [str(found("Orthanc")), str(folder / "orthanc.json")],
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def started() -> bool:
        with suppress(urllib.error.URLError, ConnectionError):
            return bool(ask(http, "system"))
        return False

    try:
        until(started, 30)
        yield http, dimse
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()


def ask(http: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{http}/{path}", timeout=10) as answer:
        return json.loads(answer.read())
