"""``fxpipe serve``: a worklist in the browser; pictures arrive by HTTP, DICOM or a folder."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

import click

from .. import logging_setup
from ..config import load
from ..errors import UsageError
from ._extras import needs
from ._malloc_arenas import limit_malloc_arenas
from ._paths import PathOption
from ._weights_folder import default_weights

_FOLDER = PathOption(file_okay=False)
_FILE = PathOption(dir_okay=False, exists=True)
_ROLES = ("web", "dicom", "send", "work")


@click.command
@click.option("--data", type=_FOLDER, required=True, help="Data folder; created if missing.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--no-browser", is_flag=True, help="Do not open the page.")
@click.option(
    "--weights",
    type=_FOLDER,
    envvar="FXPIPE_WEIGHTS",
    help="Folder with a manifest.json.  [env: FXPIPE_WEIGHTS; default: ./weights]",
)
@click.option("--database", metavar="URL", help="postgresql+psycopg://…  [default: SQLite in DATA]")
@click.option(
    "--roles",
    default="web,dicom,send,work",
    show_default=True,
    help="Parts to run; further machines with --database run `work`.",
)
@click.option(
    "--watch",
    type=PathOption(file_okay=False, exists=True),
    multiple=True,
    help="Watched folder: receive its pictures; repeatable.",
)
@click.option("--tls-certificate", type=_FILE, help="PEM file; HTTPS instead of HTTP.")
@click.option("--tls-key", type=_FILE, help="PEM file of its private key.")
@click.option(
    "--insecure-http", is_flag=True, help="Allow plain HTTP on an address other than loopback."
)
@click.option("--dicom-port", type=click.IntRange(0, 65535), help="TCP port of the DICOM node.")
@click.option("--dicom-host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--ae-title", default="FXPIPE", show_default=True, help="AE title of the service.")
@click.option("--dicom-tls", is_flag=True, help="DICOM over TLS, with --tls-certificate.")
@click.option(
    "--dicom-authority",
    type=_FILE,
    help="PEM file of the authorities for certificates of DICOM nodes.",
)
@click.option(
    "--insecure-dicom",
    is_flag=True,
    help="Allow DICOM without TLS on an address other than loopback.",
)
@click.option("--config", "file", type=PathOption(), help="TOML file with settings.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="One setting; repeatable."
)
@click.pass_context
def command(
    ctx: click.Context, data: Path, port: int, host: str, no_browser: bool, weights: Path | None,
    database: str | None, roles: str, watch: tuple[Path, ...],
    tls_certificate: Path | None, tls_key: Path | None,
    insecure_http: bool, dicom_port: int | None, dicom_host: str, ae_title: str, dicom_tls: bool,
    dicom_authority: Path | None, insecure_dicom: bool,
    file: Path | None, settings: tuple[str, ...],
) -> None:  # fmt: skip
    """Run the service until it is stopped: worklist, reviews, REST API.

    The first start prints a link for the creation of the first administrator. Every acknowledged
    picture gets exactly one result, even if the service is killed.
    """
    logging_setup.configure()
    if (tls_certificate is None) != (tls_key is None):
        raise UsageError("found one of --tls-certificate and --tls-key, expected both or none")
    if not _is_loopback(host) and tls_certificate is None and not insecure_http:
        raise UsageError(
            f"--host {host}: other machines can connect, but the connection is not encrypted",
            "give --tls-certificate and --tls-key, or --insecure-http behind a proxy",
        )
    parts = frozenset(part.strip() for part in roles.split(","))
    if not parts or not parts <= set(_ROLES):
        raise UsageError(
            f"found --roles {roles!r}, expected one or more of {', '.join(_ROLES)}, with commas"
        )
    if database is None and parts != set(_ROLES):
        raise UsageError(
            f"--roles {roles}: SQLite is used by a single process, which runs all parts",
            "give --database postgresql+psycopg://…, or omit --roles",
        )
    with needs("serve"):
        for name in ("fastapi", "sqlalchemy", "uvicorn"):  # not imported in the supervisor
            if importlib.util.find_spec(name) is None:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    if dicom_tls and tls_certificate is None:
        raise UsageError("found --dicom-tls alone, expected --tls-certificate and --tls-key too")
    if dicom_port is not None and not (_is_loopback(dicom_host) or dicom_tls or insecure_dicom):
        raise UsageError(
            f"--dicom-host {dicom_host}: other machines can connect without encryption",
            "give --dicom-tls, or --insecure-dicom in a trusted network",
        )
    if not re.fullmatch(r"[!-\[\]-~][ -\[\]-~]{0,15}", ae_title):
        raise UsageError(f"--ae-title {ae_title!r}: expected 1 to 16 ASCII characters")
    if os.environ.get("FXPIPE_SUPERVISED") != "1":
        from ..service.supervisor import supervise

        def show(line: str) -> None:
            click.echo(line)
            if not no_browser and line.startswith(("set up: ", "fxpipe listens on ")):
                opener.open(line)

        opener = _Opener()
        ctx.exit(supervise(sys.argv[1:], show))
    limit_malloc_arenas()
    with needs("serve"):
        from ..service.dicom_options import DicomOptions
        from ..service.server import Options, serve
        from ..service.settings import ServiceConfig
    options = Options(
        data, weights or default_weights(), host, port, database,
        parts, tuple(watch), certificate=tls_certificate, key=tls_key,
        dicom=DicomOptions(
            dicom_port, dicom_host, ae_title.strip(), dicom_tls, tls_certificate, tls_key,
            dicom_authority,
        ),
    )  # fmt: skip
    serve(options, load(ServiceConfig, file, settings))


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


class _Opener:
    """Opens the first printed address: the set-up link if there is one, otherwise the page."""

    def __init__(self) -> None:
        self._opened = False

    def open(self, line: str) -> None:
        """Open the address at the end of a line, unless one was opened already."""
        if self._opened:
            return
        import webbrowser

        self._opened = True
        webbrowser.open(line.split()[-1])
