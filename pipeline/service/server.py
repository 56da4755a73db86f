"""The process of a service: opens and serves it until a signal or the end of its supervisor."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from .. import lock
from ..errors import StartError, UsageError
from . import dicom
from .api.app import LOOPBACK, create_app
from .api.problems import is_not_application_error
from .application import Service, opened
from .dicom_options import DicomOptions
from .retention import Retention
from .settings import ServiceConfig
from .watch import Watcher

log = logging.getLogger(__name__)

ROLES = ("web", "dicom", "send", "work")
"""Parts of a service: page and REST API, DICOM node, sender of results, judging."""
_LOCK_S = 5.0
"""Seconds to wait until a killed earlier process releases the data folder."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the process.

    Attributes:
        data: The data folder.
        weights: Weights folder.
        host: Address to listen on.
        port: TCP port; 0 for a free one.
        database: URL; None for SQLite in the data folder.
        roles: Parts that this process runs, see :data:`ROLES`.
        watch: Folders whose pictures are received.
        certificate: PEM file of the TLS certificate; None for plain HTTP.
        key: PEM file of its private key.
        dicom: DICOM connections.
    """

    data: Path
    weights: Path
    host: str = "127.0.0.1"
    port: int = 8080
    database: str | None = None
    roles: frozenset[str] = frozenset(ROLES)
    watch: tuple[Path, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    dicom: DicomOptions = field(default_factory=DicomOptions)

    @property
    def is_loopback(self) -> bool:
        """Whether an address accepts connections from this machine only."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


def serve(options: Options, config: ServiceConfig) -> None:
    """Run until SIGTERM or SIGINT; print the address once connections are accepted.

    Without the role ``web``, there is no HTTP port.

    Raises:
        UsageError: Another process uses the data folder.
        StartError: The address is in use, or database or weights cannot be opened.
    """
    with ExitStack() as stack:
        is_web = "web" in options.roles
        listener = stack.enter_context(_listening(options)) if is_web else None
        _wait_for_lock(options)
        service = stack.enter_context(
            opened(
                options.data, options.weights, config, database=options.database,
                judge="work" in options.roles,
            )
        )  # fmt: skip
        receives, sends = "dicom" in options.roles, "send" in options.roles
        dicom_port = stack.enter_context(dicom.running(service, options.dicom, receives, sends))
        if is_web:
            stack.callback(Retention(service).stop)
        for folder in options.watch:
            watcher = Watcher(service, folder)
            stack.callback(watcher.stop)
            service.watchers.append(watcher)
        if listener is None:
            _work(options)
            return
        port = listener.getsockname()[1]
        app = create_app(service, LOOPBACK if options.is_loopback else ("*",))
        logging.getLogger("uvicorn.error").addFilter(is_not_application_error)
        settings = uvicorn.Config(
            app, log_config=None, access_log=False, timeout_graceful_shutdown=5,
            ssl_certfile=options.certificate, ssl_keyfile=options.key, server_header=False,
            lifespan="on", timeout_keep_alive=30,
        )  # fmt: skip
        server = _Server(settings, app, lambda: _announce(options, port, dicom_port, service))

        def stop() -> None:
            server.should_exit = True

        _end_with_supervisor(stop)
        server.run(sockets=[listener])


def _work(options: Options) -> None:
    """Wait for a signal while the other parts run."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    _end_with_supervisor(stopping.set)
    sys.stdout.write(f"fxpipe runs {', '.join(sorted(options.roles))}\n")
    sys.stdout.flush()
    stopping.wait()


class _Server(uvicorn.Server):
    """Calls a function once connections are accepted; ends event streams on shutdown."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._app, self._announce = app, started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        if self.started:
            self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        self._app.state.stopping = True
        await super().shutdown(sockets)


@contextmanager
def _listening(options: Options) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # asyncio switches delayed sending (Nagle) off only if it knows the protocol; a delay is 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((options.host, options.port))
        except OSError as error:
            raise StartError(
                f"cannot listen on {options.host} port {options.port} ({error.strerror})",
                "choose another --port",
            ) from error
        listener.listen(1024)
        yield listener


def _wait_for_lock(options: Options) -> None:
    if options.database is not None or not options.data.is_dir():
        return
    deadline = time.monotonic() + _LOCK_S
    while True:
        try:
            with lock.exclusive(options.data):
                return
        except UsageError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _announce(options: Options, port: int, dicom_port: int | None, service: Service) -> None:
    scheme = "https" if options.certificate else "http"
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"{scheme}://{host}:{port}/"
    if service.setup_code is not None:
        sys.stdout.write(f"set up: {address}#setup={service.setup_code}\n")
    sys.stdout.write(f"fxpipe listens on {address}\n")
    if dicom_port is not None:
        sys.stdout.write(f"DICOM node: {options.dicom.title} port {dicom_port}\n")
    sys.stdout.flush()


def _end_with_supervisor(stop: Callable[[], None]) -> None:
    """Stop this process when its supervisor ends and closes the pipe to standard input."""
    if os.environ.get("FXPIPE_SUPERVISED") != "1":
        return

    def watch() -> None:
        handle = sys.stdin.fileno()
        while os.read(
            handle, 4096
        ):  # a buffered reader would abort the shutdown of the interpreter
            pass
        stop()
        time.sleep(10.0)
        os._exit(1)

    threading.Thread(target=watch, name="fxpipe-supervised", daemon=True).start()
