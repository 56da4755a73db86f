"""``fxpipe weights``: lists, verifies, packs and installs weights folders."""

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
    """List, verify or pack a weights folder, or install a pack."""
    logging_setup.configure()


@command.command(name="list")
@_WEIGHTS
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def list_bundles(weights: Path | None, as_json: bool) -> None:
    """List the bundles: kind, precision, size, digest, training data and operating points."""
    from ..weights.listing import rows
    from ._console import stdout_console
    from ._weights_folder import default_weights

    bundles = rows(weights or default_weights())
    if as_json:
        click.echo(json.dumps([asdict(row) for row in bundles], indent=2, ensure_ascii=False))
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in ("bundle", "kind", "as", "MB", "sha256", "created"):
        table.add_column(column, justify="right" if column == "MB" else "left", no_wrap=True)
    for row in bundles:
        size_mb = f"{row.size_bytes / 1e6:.1f}"
        facts = (row.name, row.kind, row.precision, size_mb, row.sha256[:12], row.created[:10])
        table.add_row(*facts)
    console = stdout_console()
    console.print(table)
    names_by_fact: dict[str, dict[str, None]] = {}
    for row in bundles:
        names_by_fact.setdefault(f"trained on {row.trained_on}", {})[row.name] = None
        if row.points:
            points = f"operating points {', '.join(row.points)}"
            names_by_fact.setdefault(points, {})[row.name] = None
    for fact, names in names_by_fact.items():
        console.print(f"{', '.join(names)}: {fact}", markup=False, highlight=False)


@command.command(name="verify")
@_WEIGHTS
def verify(weights: Path | None) -> None:
    """Compare every file with the manifest, and open every bundle on the CPU.

    Exit code: 0 if the folder is intact, 3 if not.
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
        f"{size_mb:.1f} MB, match the manifest"
    )
    for precision in sorted({entry.precision for entry in manifest.bundles}):
        try_bundles(folder, manifest, precision)
        count = len(manifest.of(precision))
        complete = precision in manifest.precisions
        result = "compatible" if complete else "not used, because bundles are missing"
        click.echo(f"{precision}: {count} bundle(s) opened on the CPU; {result}")
    for file in unlisted(folder, manifest):
        click.echo(f"warning: {file}: not in the manifest, so it is never opened", err=True)


@command.command(name="pack")
@_WEIGHTS
@click.option("--output", type=_FILE, required=True, help="File to write or replace.")
@click.option("--sign", "key", type=_FILE, help="PEM file with a private Ed25519 key.")
def pack(weights: Path | None, output: Path, key: Path | None) -> None:
    """Pack a weights folder into one file, with the same bytes on every machine.

    The pack contains only files that the manifest lists.
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
    help="Weights folder to create.",
)  # fmt: skip
@click.option("--trust", type=_FILE, help="PEM file with the public key of the required signature.")
@click.option("--sha256", metavar="HEX", help="Required digest of the pack.")
@click.option("--replace", is_flag=True, help="Replace existing weights in --to.")
@click.option("--quiet", is_flag=True, help="No progress.")
def install_pack(
    source: str, target: Path, trust: Path | None, sha256: str | None, replace: bool, quiet: bool
) -> None:
    """Verify a pack and install it as a weights folder; nothing is written before verification.

    A path works offline. A URL must use https, or http with --sha256. Old weights are kept until
    the new ones are complete.
    """
    from ..weights.fetch import opened
    from ..weights.pack import MOST_BYTES, install

    if sha256 is not None and not _is_digest(sha256):
        raise click.BadParameter(
            f"{sha256!r} is not a digest of {_DIGEST} hexadecimal digits", param_hint="--sha256"
        )
    with ExitStack() as stack:

        def show_progress(mebibytes: int | None) -> Callable[[], None]:
            return stack.enter_context(on_stderr(mebibytes, quiet, "MiB")).advance

        file = stack.enter_context(opened(source, sha256, MOST_BYTES, show_progress))
        with needs("sign"):
            manifest = install(file, source, target, trusted=trust, replace=replace)
    signed = f"signed by the owner of {trust}" if trust else "signature not checked"
    click.echo(f"{target}: {len(manifest.bundles)} bundles installed, {signed}")
    click.echo(f"use them with `fxpipe run --weights {target}`")


def _is_digest(text: str) -> bool:
    return len(text) == _DIGEST and all(letter in "0123456789abcdef" for letter in text.lower())
