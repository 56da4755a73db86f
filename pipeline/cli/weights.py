"""``fxpipe weights``: weights folders looked at, proven, packed into one file and installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import click

from .. import logging_setup
from ..progress import on_stderr
from ._extras import needs
from ._paths import PathOption

_FOLDER = PathOption(file_okay=False)
_FILE = PathOption(dir_okay=False)
_WEIGHTS = click.option(
    "--weights", type=_FOLDER, envvar="FXPIPE_WEIGHTS",
    help="Folder with a manifest.json.  [env: FXPIPE_WEIGHTS; default: ./weights]",
)  # fmt: skip
_DIGEST = 64


@click.group(name="weights")
def command() -> None:
    """Look at a weights folder, prove it, pack it into one file, install such a file."""
    logging_setup.configure()


@command.command(name="list")
@_WEIGHTS
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def list_bundles(weights: Path | None, as_json: bool) -> None:
    """One row a bundle: what it is, what it was trained on, its operating points."""
    from ..weights.listing import rows
    from ._console import stdout_console
    from ._weights_folder import default_weights

    found = rows(weights or default_weights())
    if as_json:
        click.echo(json.dumps([asdict(row) for row in found], indent=2, ensure_ascii=False))
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in ("bundle", "kind", "as", "MB", "sha256", "created"):
        table.add_column(column, justify="right" if column == "MB" else "left", no_wrap=True)
    for row in found:
        size_mb = f"{row.size_bytes / 1e6:.1f}"
        facts = (row.name, row.kind, row.precision, size_mb, row.sha256[:12], row.created[:10])
        table.add_row(*facts)
    console = stdout_console()
    console.print(table)
    told: dict[str, dict[str, None]] = {}
    for row in found:
        told.setdefault(f"trained on {row.trained_on}", {})[row.name] = None
        if row.points:
            told.setdefault(f"operating points {', '.join(row.points)}", {})[row.name] = None
    for words, names in told.items():
        console.print(f"{', '.join(names)}: {words}", markup=False, highlight=False)


@command.command(name="verify")
@_WEIGHTS
def verify(weights: Path | None) -> None:
    """Compare every file with the manifest, and open every bundle on the CPU.

    Exit code: 0 intact, 3 not.
    """
    from ..runtime.session import try_bundles
    from ..weights.manifest import read_manifest
    from ..weights.verify import check_all, unlisted
    from ._weights_folder import default_weights

    folder = weights or default_weights()
    manifest = read_manifest(folder)
    check_all(folder, manifest)
    size_mb = sum(listed.size_bytes for listed in manifest.files) / 1e6
    click.echo(
        f"{folder}: {len(manifest.bundles)} bundles and {len(manifest.documents)} documents, "
        f"{size_mb:.1f} MB, as the manifest says"
    )
    for precision in sorted({entry.precision for entry in manifest.bundles}):
        try_bundles(folder, manifest, precision)
        used = len(manifest.of(precision))
        whole = precision in manifest.precisions
        told = "they fit each other" if whole else "not every bundle is there, so it is not used"
        click.echo(f"{precision}: {used} bundle(s) opened on the CPU; {told}")
    for file in unlisted(folder, manifest):
        click.echo(f"warning: {file}: not in the manifest, never opened", err=True)


@command.command(name="pack")
@_WEIGHTS
@click.option("--output", type=_FILE, required=True, help="File to write, replaced if there.")
@click.option("--sign", "key", type=_FILE, help="PEM file with a private Ed25519 key.")
def pack(weights: Path | None, output: Path, key: Path | None) -> None:
    """Write a weights folder into one file, the same bytes on every machine.

    Only what the manifest lists goes along.
    """
    from ..weights.pack import write_pack
    from ._weights_folder import default_weights

    with needs("sign"):
        digest = write_pack(weights or default_weights(), output, key)
    signed = "signed" if key else "not signed"
    click.echo(f"{output}: written, {signed}; sha256 {digest}")


@command.command(name="install")
@click.argument("source", metavar="FILE|URL")
@click.option(
    "--to", "target", type=_FOLDER, default=Path("weights"), show_default=True,
    help="Weights folder to make.",
)  # fmt: skip
@click.option("--trust", type=_FILE, help="PEM file with the public key that must have signed it.")
@click.option("--sha256", metavar="HEX", help="Digest that the pack must have.")
@click.option("--replace", is_flag=True, help="Exchange the weights that are in --to already.")
@click.option("--quiet", is_flag=True, help="No progress.")
def install_pack(
    source: str, target: Path, trust: Path | None, sha256: str | None, replace: bool, quiet: bool
) -> None:
    """Verify a pack and make a weights folder of it; nothing is written before all is verified.

    A path works offline. A URL must be https, or http with --sha256. Old weights stay whole until
    the new ones are.
    """
    from ..weights.fetch import opened
    from ..weights.pack import MOST_BYTES, install

    if sha256 is not None and not _is_digest(sha256):
        raise click.BadParameter(
            f"found {sha256!r}, wanted {_DIGEST} hexadecimal digits", param_hint="--sha256"
        )
    with ExitStack() as stack:

        def told(mebibytes: int | None) -> Callable[[], None]:
            return stack.enter_context(on_stderr(mebibytes, quiet, "MiB")).advance

        file = stack.enter_context(opened(source, sha256, MOST_BYTES, told))
        with needs("sign"):
            manifest = install(file, source, target, trusted=trust, replace=replace)
    signed = f"signed by the owner of {trust}" if trust else "signature not looked at"
    click.echo(f"{target}: {len(manifest.bundles)} bundles installed, {signed}")
    click.echo(f"use them with `fxpipe run --weights {target}`")


def _is_digest(text: str) -> bool:
    return len(text) == _DIGEST and all(letter in "0123456789abcdef" for letter in text.lower())
