"""``fxpipe service``: a systemd unit for ``fxpipe serve``."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .. import logging_setup
from ..atomic import write_atomic
from ..errors import OutputError, UsageError
from ._paths import PathOption
from ._weights_folder import default_weights

_FOLDER = PathOption(file_okay=False)
_SYSTEM = Path("/etc/systemd/system")


@click.group(name="service")
def command() -> None:
    """Install `fxpipe serve` as a service of systemd."""
    logging_setup.configure()


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of both commands."""
    for option in reversed(
        (
            click.option(
                "--data", type=_FOLDER, required=True, help="Data folder, such as /var/lib/fxpipe."
            ),
            click.option(
                "--weights", type=_FOLDER, envvar="FXPIPE_WEIGHTS",
                help="Weights folder.  [env: FXPIPE_WEIGHTS; default: ./weights]",
            ),
            click.option("--user", "of_user", is_flag=True, help="A service of the current user."),
            click.option(
                "--account", default="fxpipe", show_default=True,
                help="User that a system service runs as.",
            ),
            click.option("--gpu", is_flag=True, help="Keep GPU devices visible."),
            click.argument("serve_options", nargs=-1, type=click.UNPROCESSED),
        )
    ):  # fmt: skip
        function = option(function)
    return function


@command.command(name="print")
@_options
def print_(**options: Any) -> None:
    """Print the unit; options of `fxpipe serve` follow after `--`."""
    click.echo(_unit(**options), nl=False)


@command.command
@_options
@click.option("--force", is_flag=True, help="Replace a unit that differs.")
def install(force: bool, **options: Any) -> None:
    """Write the unit and make the data folder; options of `fxpipe serve` follow after `--`.

    The unit goes to /etc/systemd/system, or with --user to ~/.config/systemd/user. The
    service is not started; the command to start it is printed.
    """
    if sys.platform != "linux":
        raise UsageError(
            "systemd is only available on Linux",
            "on Windows, run `fxpipe serve` with the task scheduler: see docs/service.md",
        )
    text, data = _unit(**options), options["data"].absolute()
    of_user, account = options["of_user"], options["account"]
    folder = _user_units() if of_user else _SYSTEM
    path = folder / "fxpipe.service"
    if not of_user:
        _check_account(account)
    try:
        if path.exists() and path.read_text(encoding="utf-8") != text and not force:
            raise UsageError(f"{path}: exists with other content", "compare it, or give --force")
        data.mkdir(parents=True, exist_ok=True)
        data.chmod(0o700)
        if not of_user:
            shutil.chown(data, account)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode())
    except OSError as error:
        raise OutputError(
            f"cannot install {path} ({error.strerror}: {error.filename})",
            "" if of_user else "run it as root, or give --user",
        ) from error
    manager = "systemctl --user" if of_user else "systemctl"
    click.echo(f"{path} is installed; start it with")
    click.echo(f"{manager} daemon-reload && {manager} enable --now fxpipe")
    click.echo(f"the set-up link is in the log: journalctl {'--user ' * of_user}-u fxpipe")


def _unit(
    data: Path, weights: Path | None, of_user: bool, account: str, gpu: bool,
    serve_options: tuple[str, ...],
) -> str:  # fmt: skip
    from ..service.systemd_unit import Unit, has_low_port
    from . import serve

    weights = (weights or default_weights()).absolute()
    words = ["--data", str(data.absolute()), "--weights", str(weights), "--no-browser"]
    words += serve_options
    parser = serve.command.make_parser(click.Context(serve.command, info_name="fxpipe serve"))
    values, _, _ = parser.parse_args(list(words))  # raises on an unknown option
    if not account.replace("-", "").replace("_", "").isalnum() or not account.isascii():
        raise UsageError(f"--account {account!r}: expected the name of a user")
    read = [Path(value).absolute() for value in values.get("watch") or ()]
    read += [
        Path(values[name]).absolute()
        for name in ("tls_certificate", "tls_key", "file")
        if values.get(name)
    ]
    program = [sys.executable, "-m", "pipeline.cli", "serve", *words]
    try:
        return Unit(
            program, data.absolute(), None if of_user else account,
            (Path(sys.prefix), weights, *read), gpu, has_low_port(words),
        ).text()  # fmt: skip
    except ValueError as error:
        raise UsageError(str(error)) from error


def _user_units() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "systemd/user"


def _check_account(account: str) -> None:
    import pwd

    try:
        pwd.getpwnam(account)
    except KeyError as error:
        raise UsageError(
            f"found no user {account!r}",
            f"useradd --system --no-create-home --shell /usr/sbin/nologin {account}",
        ) from error
