"""``fxpipe merge``: combines the results of all chunks of a plan."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from ..archive.merge import find_chunks, merge
from ..archive.merge import verify as verify_chunks
from ..archive.plan import open_plan
from ..folder_run import lock_output
from ..outcome import SEVERITY
from ..progress import on_stderr
from ._extras import needs
from ._paths import PathOption

_PATH = PathOption()


@click.command(name="merge")
@click.option("--plan", "file", type=_PATH, required=True, help="A file of `fxpipe plan`.")
@click.option(
    "--from",
    "folders",
    type=_PATH,
    multiple=True,
    help="Output folder of `fxpipe run --plan`; repeatable, one for each.  [default: --output]",
)
@click.option(
    "--output",
    type=_PATH,
    default=Path("results"),
    show_default=True,
    help="Folder for results.csv, results.jsonl and, with studies, studies.csv.",
)
@click.option("--root", type=_PATH, help="Where the folder of the inputs is on this machine.")
@click.option("--parquet", is_flag=True, help="Also write OUTPUT/results.parquet.")
@click.option(
    "--verify", is_flag=True, help="First read all input files and results, and compare digests."
)
@click.option("--quiet", is_flag=True, help="No progress and no summary.")
@click.pass_context
def command(
    ctx: click.Context, /, file: Path, folders: tuple[Path, ...], output: Path, root: Path | None,
    parquet: bool, verify: bool, quiet: bool,
) -> None:  # fmt: skip
    """Combine the chunks of --plan: the results are those of a single run, except for times."""
    plan = open_plan(file, root)
    chunks = find_chunks(plan, folders or (output,))
    if parquet:
        with needs("parquet"):
            import pyarrow  # noqa: F401
    with ExitStack() as stack:
        lock_output(stack, output)
        if verify:
            with on_stderr(plan.chunks, quiet, "chunks") as progress:
                verify_chunks(chunks, progress)
        with on_stderr(plan.chunks, quiet, "chunks") as progress:
            merged = merge(chunks, output, progress, parquet=parquet)
    if not quiet:
        counts = [f"{n} {one.value}" for one in SEVERITY if (n := merged.answers[one.value])]
        click.echo(f"{merged.answers.total()} in all: {', '.join(counts)}")
        if merged.studies:
            click.echo(f"{merged.studies} studies")
    ctx.exit(1 if merged.answers["failed"] else 0)
