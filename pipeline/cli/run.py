"""``fxpipe run``: judges files and writes the results."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any, get_args

import click

from .. import logging_setup
from ..config import Device, RunConfig, load
from ..errors import UsageError
from ..folder_run import FolderRun
from ..io.own_output import TABLE
from ..progress import on_stderr, visible
from ..reading.open_reader import open_reader
from ..report.resume import Kept
from ..report.summary import Summary
from ..report.unfinished import about
from ..studies import studies_by
from ._chunk_options import chunk_ranges, shard_of
from ._console import stdout_console
from ._inputs import inputs_of, opened_url
from ._malloc_arenas import limit_malloc_arenas
from ._networks import open_networks
from ._output_options import (
    asked_outputs,
    check_apart,
    make_folders,
    output_options,
)
from ._paths import InputOption, PathOption
from ._resume import resume_message, stoppable, tell_stopped
from ._weights_folder import default_weights

_FOLDER = PathOption()


def _engine(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if value not in ("local", "ray") and not re.fullmatch(r"ray://[^\s/]+:[0-9]{1,5}", value):
        raise click.BadParameter(
            f"found {value!r}, expected local, ray or ray://HOST:PORT", ctx, param
        )
    return value


@click.command(name="run")
@click.option(
    "--input",
    "sources",
    type=InputOption(),
    multiple=True,
    help="A file, a folder or a URL such as s3://bucket/export/; files and folders are "
    "repeatable, read in the given order.",
)
@click.option(
    "--plan", "plan_file", type=_FOLDER, help="Instead of --input: a file of `fxpipe plan`."
)
@click.option(
    "--chunks",
    callback=chunk_ranges,
    metavar="A-B",
    help="Chunks of --plan to judge, such as 17, 17-40 or 3,7-9.  [default: all]",
)
@click.option(
    "--shard",
    callback=shard_of,
    metavar="I/N",
    help="Part I of N of the chunks, I from 1.",
)
@click.option(
    "--root", "planned_root", type=_FOLDER, help="Where the folder of --plan is on this machine."
)
@click.option(
    "--engine",
    callback=_engine,
    default="local",
    show_default=True,
    metavar="local|ray|ray://HOST:PORT",
    help="Where the chunks of --plan are judged: by this process, or on all nodes of a Ray "
    "cluster, which need the same paths.",
)
@click.option(
    "--verify", is_flag=True, help="Read all files of finished chunks again, and compare digests."
)
@click.option(
    "--output",
    type=_FOLDER,
    default=Path("results"),
    show_default=True,
    help="Folder for results.csv, results.jsonl and, with studies, studies.csv. It is created if "
    "missing; files of a finished run are replaced.",
)
@click.option(
    "--weights",
    type=_FOLDER,
    envvar="FXPIPE_WEIGHTS",
    help="Folder with a manifest.json.  [env: FXPIPE_WEIGHTS; default: ./weights]",
)
@click.option("--device", type=click.Choice(get_args(Device)), help="Where the networks run.")
@click.option("--batch-size", type=int, help="Number of pictures per batch of the trunk.")
@click.option(
    "--workers", type=int, help="Number of files to read in parallel; 0 for one per core."
)
@click.option(
    "--timeout-per-file",
    "timeout_per_file_s",
    type=float,
    metavar="SECONDS",
    help="A file that takes longer to read gets a failed row.  [default: 60]",
)
@click.option("--operating-point", metavar="NAME", help="A decision rule stored in the bundles.")
@output_options
@click.option(
    "--identifiers",
    type=click.Choice(("omit", "keep")),
    help="Whether the outputs contain patient, accession number and DICOM UIDs.  [default: omit]",
)
@click.option("--config", "file", type=_FOLDER, help="TOML file with settings.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="One setting; repeatable."
)
@click.option(
    "--resume/--restart",
    default=True,
    show_default=True,
    help="If OUTPUT contains an unfinished run of the same configuration: resume it, or start "
    "over. Without an unfinished run, both start a new one.",
)
@click.option("--quiet", is_flag=True, help="No progress and no summary; warnings remain.")
@click.option("--verbose", is_flag=True, help="Also log the device, and worker processes that end.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    sources: tuple[Path | str, ...],
    plan_file: Path | None,
    chunks: list[range] | None,
    shard: tuple[int, int] | None,
    planned_root: Path | None,
    verify: bool,
    engine: str,
    output: Path,
    weights: Path | None,
    file: Path | None,
    settings: tuple[str, ...],
    resume: bool,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Judge every picture of --input: which region, and is there a fracture?

    Every file gets a row, including unreadable and unsupported ones. Options override --set, and
    --set overrides --config. In the CSV, an apostrophe is put before a text that a spreadsheet
    would run as a formula.
    """
    logging_setup.configure(logging.INFO if verbose else logging.WARNING)
    limit_malloc_arenas()
    given = {key: value for key, value in options.items() if value is not None}
    config = load(RunConfig, file, settings, given)
    if plan_file is None:
        _check_no_chunks(
            chunks=chunks, shard=shard, root=planned_root, verify=verify, engine=engine != "local"
        )
        _run_folder(ctx, sources, output, weights, config, resume, quiet)
    else:
        from ..archive.plan import open_plan  # other runs need none of it
        from ._chunks import chosen_chunks, run_chunks

        if sources:
            raise UsageError("found --input and --plan, expected one of them")
        plan = open_plan(plan_file, planned_root)
        numbers = chosen_chunks(plan, chunks, shard)
        run_chunks(ctx, plan, numbers, output, weights, config, engine, resume, verify, quiet)


def _check_no_chunks(**given: object) -> None:
    for name, value in given.items():
        if value:
            raise UsageError(f"--{name} needs --plan", "make a plan with `fxpipe plan`")


def _run_folder(
    ctx: click.Context, sources: tuple[Path | str, ...], output: Path, weights: Path | None,
    config: RunConfig, resume: bool, quiet: bool,
) -> None:  # fmt: skip
    if not sources:
        raise click.MissingParameter(ctx=ctx, param_hint="--input", param_type="option")
    fetched = opened_url(ctx, sources, config)
    local = [fetched.root] if fetched else [one for one in sources if isinstance(one, Path)]
    inputs = inputs_of(local)
    check_apart(inputs, output, config)
    root = inputs.root
    studies = studies_by(config.studies, root)
    left_out: dict[Path, None] = {}
    reader = ctx.with_resource(open_reader(config))  # starts while the networks are opened
    # Raises for an empty folder before anything is opened or written.
    paths = fetched.paths() if fetched else inputs.files(output, left_out)
    networks = open_networks(weights or default_weights(), config, quiet)
    summary = Summary(root, left_out)
    total = None
    if visible() and not quiet and not fetched:
        total = sum(1 for _ in inputs.files(output))
    outputs = asked_outputs(config)
    make_folders(outputs, config)
    work = FolderRun(networks, config, root, studies, outputs, reader, fetched)
    source = {"input": fetched.url if fetched else inputs.text}

    def tell_resumed(kept: Kept) -> None:
        if not quiet:
            click.echo(resume_message(output, kept), err=True)

    with on_stderr(total, quiet) as progress, stoppable(ctx):
        lines = work.judge(
            paths, output, about(source, networks, config), summary, progress,
            restart=not resume, resumed=tell_resumed, stopped=tell_stopped,
        )  # fmt: skip
    studies.warn()
    if not quiet:
        summary.print_to(stdout_console(), output / TABLE, lines, networks.gate_warning)
    ctx.exit(1 if summary.failed else 0)
