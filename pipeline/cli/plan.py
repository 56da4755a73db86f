"""``fxpipe plan``: lists the files of an archive in chunks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from ..archive.plan import CHUNK_FILES, write_plan
from ..archive.slurm import array_script
from ..errors import UsageError
from ..progress import on_stderr
from ._inputs import inputs_of
from ._paths import PathOption

_PATH = PathOption()


@click.command(name="plan")
@click.option(
    "--input",
    "sources",
    type=_PATH,
    multiple=True,
    required=True,
    help="A file or a folder; repeatable, read in the given order.",
)
@click.option(
    "--chunk",
    "chunk_files",
    type=click.IntRange(1, 1_000_000),
    default=CHUNK_FILES,
    show_default=True,
    help="Number of files that are judged as one unit.",
)
@click.option(
    "--output",
    type=_PATH,
    default=Path("plan.sqlite"),
    show_default=True,
    help="The plan to write; an existing one is replaced.",
)
@click.option(
    "--slurm",
    "tasks",
    type=click.IntRange(1, 100_000),
    metavar="TASKS",
    help="Also print a script for `sbatch`: an array of this many tasks.",
)
@click.option(
    "--results",
    type=_PATH,
    default=Path("results"),
    show_default=True,
    help="Output folder of the tasks of --slurm; all nodes must have access.",
)
@click.option("--quiet", is_flag=True, help="No progress and no summary.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def command(
    sources: tuple[Path, ...], chunk_files: int, output: Path, tasks: int | None, results: Path,
    quiet: bool, words: tuple[str, ...],
) -> None:  # fmt: skip
    """List all files of --input for `fxpipe run --plan`, in chunks.

    Any number of processes and machines can then judge chunks; `fxpipe merge` combines their
    results to those of a single run. WORDS after -- are options of `fxpipe run` in the script of
    --slurm.
    """
    if words and tasks is None:
        raise UsageError(f"found {words[0]}; only --slurm takes options of `fxpipe run`")
    inputs = inputs_of(sources)
    for source in inputs.paths:
        if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
            raise UsageError(
                f"--output {output} is in the input folder; the plan must be separate from the "
                "originals", "name another --output",
            )  # fmt: skip
    output.parent.mkdir(parents=True, exist_ok=True)
    left_out: dict[Path, None] = {}
    with on_stderr(None, quiet) as progress:

        def counted() -> Iterator[Path]:
            for path in inputs.files(left_out=left_out):
                progress.advance()
                yield path

        plan = write_plan(output, inputs.root, counted(), chunk_files)
    if not quiet:
        click.echo(
            f"{output}: {plan.files} files in chunks 0-{plan.chunks - 1}", err=tasks is not None
        )
        if left_out:
            click.echo(f"left out: results of fxpipe in {len(left_out)} folders", err=True)
    if tasks is not None:
        results.mkdir(parents=True, exist_ok=True)  # for the logs of Slurm
        program = (sys.executable, "-m", "pipeline.cli")
        click.echo(array_script(plan, tasks, results, program, words), nl=False)
