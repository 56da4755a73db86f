"""The command ``fxpipe``: a group that imports each command only when it is used."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from contextlib import suppress
from typing import Any

import click

from .. import DISTRIBUTION, version
from ..errors import FxpipeError, OutputError, StartError
from ..regions import REGIONS_IN_WORDS
from ._streams import handle_stream_errors

_COMMANDS = {
    "run": "Judge radiographs with exported bundles.",
    "plan": "List the files of an archive in chunks, for many processes.",
    "merge": "Combine the results of all chunks of a plan.",
    "serve": "Run a worklist in the browser: REST API, DICOM node, reviews.",
    "token": "Create a bearer token for `fxpipe serve`.",
    "backup": "Back up the data of `fxpipe serve` while it runs.",
    "restore": "Check or restore a backup of `fxpipe serve`.",
    "audit-log": "Verify the audit log of `fxpipe serve`.",
    "service": "Install `fxpipe serve` as a systemd service.",
    "index": "Build and check the table of training pictures.",
    "audit": "Find leaks between the splits of a table.",
    "augment": "Draw training pictures with their augmentations.",
    "train-stage": "Train one stage on a table of pictures.",
    "crossval": "Cross-validate one stage by group.",
    "calibrate": "Set thresholds from your own pictures, without training.",
    "export": "Turn a training run into a bundle.",
    "ensemble": "Combine several fracture bundles into one specialist.",
    "evaluate": "Measure bundles on a table, stage by stage and end to end.",
    "compare": "Train several systems on one table and compare their figures.",
    "bench": "Measure the speed here, compared with other implementations.",
    "cards": "Write a model card for each bundle.",
    "weights": "List, verify, pack and install weights.",
    "doctor": "Check what works on this machine, and what does not.",
    "schema": "Print the JSON Schema of results.jsonl.",
}
"""Name and short help of each command. They are listed here so that ``fxpipe --help`` does not
import any command. Each command is the object ``command`` in the module of the same name."""

_INTERRUPTED = 130


class LazyGroup(click.Group):
    """A click group of :data:`_COMMANDS` that also turns fxpipe's errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of a typical workflow."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; None if there is no command of that name."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"{__name__}.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Run as the console script does; closed or full stdout and stderr are handled."""
        try:
            with handle_stream_errors():
                return super().__call__(*args, **options)
        except OutputError as error:  # from --help, or from the last output
            with suppress(OSError):
                click.echo(f"error: {error}", err=True)
            sys.exit(error.exit_code)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an unexpected exception keeps its traceback."""
        try:
            check_packages()
            return super().invoke(ctx)
        except FxpipeError as error:
            click.echo(f"error: {error}", err=True)
            if error.hint:
                click.echo(f"hint: {error.hint}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(_INTERRUPTED)


def check_packages() -> None:
    """Make sure that ``pipeline`` and ``stages`` are the packages of this distribution.

    Both names are common words, so another folder of that name may come first on the path.

    Raises:
        StartError: One of them belongs to another distribution.
    """
    for name in ("pipeline", "stages"):
        spec = importlib.util.find_spec(name)
        if spec is None:
            continue  # only `pipeline` is installed
        distribution = getattr(importlib.import_module(name), "DISTRIBUTION", None)
        if distribution != DISTRIBUTION:
            places = spec.origin or ", ".join(spec.submodule_search_locations or ())
            raise StartError(
                f"the package {name!r} at {places} does not belong to {DISTRIBUTION}",
                "start fxpipe from another folder, or remove that folder from PYTHONPATH",
            )


def _print_version(ctx: click.Context, _: click.Parameter, is_set: bool) -> None:
    if is_set:
        click.echo(f"{DISTRIBUTION} {version()}")
        ctx.exit()


_HELP = f"""Find fractures in radiographs of {REGIONS_IN_WORDS}: a second reader for research.

Exit codes: 0 success; 1 some inputs failed, or a check failed; 2 wrong usage or configuration; 3
could not start, or could not write.
"""


@click.group(cls=LazyGroup, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def main() -> None:
    """All commands."""
