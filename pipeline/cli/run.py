"""``fxpipe run``: files in, verdicts out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from .. import log
from ..config import Device, Heatmaps, RunConfig, load
from ..domain import Outcome
from ..engine import run
from ..progress import Progress, on_stderr, visible
from ..reading.opened import open_reader
from ..report import ReportWriter
from ..report.journal import Journal, read
from ..report.resume import Done, keep
from ..report.stream import Streaming
from ..report.summary import Summary
from ..runtime.session import load_bundles
from ..studies import Studies, studies_by
from .arenas import few_arenas
from .console import stdout_console
from .inputs import inputs_of
from .outputs import (
    TABLE,
    check_apart,
    check_writable,
    dicom_writer,
    hold,
    open_writers,
    studies_writer,
)
from .paths import PathOption
from .resuming import Stopped, about, plan, stoppable, stopped, told
from .weights_folder import default_weights, weights_line

if TYPE_CHECKING:
    from ..report.dicom.writer import DicomWriter

_FOLDER = PathOption()


@click.command(name="run")
@click.option(
    "--input",
    "sources",
    type=_FOLDER,
    multiple=True,
    required=True,
    help="A file or a folder; repeatable, read in the order given.",
)
@click.option(
    "--output",
    type=_FOLDER,
    default=Path("results"),
    show_default=True,
    help="Folder for results.csv, results.jsonl and, with studies, studies.csv; made when "
    "missing, files of a finished run replaced.",
)
@click.option(
    "--weights",
    type=_FOLDER,
    envvar="FXPIPE_WEIGHTS",
    help="Folder with a manifest.json.  [env: FXPIPE_WEIGHTS; default: ./weights]",
)
@click.option("--device", type=click.Choice(get_args(Device)), help="Where the networks run.")
@click.option("--batch-size", type=int, help="Pictures that the trunk sees at once.")
@click.option("--workers", type=int, help="Files that are read at once; 0 for one a core.")
@click.option(
    "--timeout-per-file",
    "timeout_per_file_s",
    type=float,
    metavar="SECONDS",
    help="A file that takes longer to read gets a failed row.  [default: 60]",
)
@click.option("--operating-point", metavar="NAME", help="A decision rule stored in the bundles.")
@click.option(
    "--heatmaps",
    type=click.Choice(get_args(Heatmaps)),
    help="Overlays in OUTPUT/heatmaps/: of positive and uncertain pictures, of all, or none.  "
    "[default: positive with --report or --dicom-out, else none]",
)
@click.option(
    "--report",
    is_flag=True,
    default=None,
    help="OUTPUT/report.html too: worklist, pictures and heatmaps in one page.",
)
@click.option("--fhir", is_flag=True, default=None, help="OUTPUT/results.fhir.json too: FHIR R4.")
@click.option(
    "--dicom-out",
    type=_FOLDER,
    help="Folder for reports, overlays and contours of DICOM pictures as DICOM objects.",
)
@click.option(
    "--identifiers",
    type=click.Choice(("omit", "keep")),
    help="Whether the outputs tell patient, accession and DICOM UIDs.  [default: omit]",
)
@click.option(
    "--studies",
    metavar="HOW",
    help="What pictures are one study, for studies.csv: auto (DICOM header, else MURA's folders), "
    "dicom, mura, folder, none, or TABLE.csv with columns path and study.  [default: auto]",
)
@click.option("--config", "file", type=_FOLDER, help="TOML file with settings.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="One setting; repeatable."
)
@click.option(
    "--resume/--restart",
    default=True,
    show_default=True,
    help="What to do where OUTPUT holds an unfinished run of the same configuration: go on where "
    "it stopped, or begin anew. Where it holds none, both begin.",
)
@click.option("--quiet", is_flag=True, help="No progress and no summary; warnings remain.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    sources: tuple[Path, ...],
    output: Path,
    weights: Path | None,
    file: Path | None,
    settings: tuple[str, ...],
    resume: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Judge every picture of --input: which region, and is there a fracture?

    Every file gets a row, also those that cannot be read or show something else. Options stand
    above --set, --set above --config. A text in the CSV that a spreadsheet would run as a
    formula gets an apostrophe in front.
    """
    log.configure()
    few_arenas()
    given = {key: value for key, value in options.items() if value is not None}
    config = load(RunConfig, file, settings, given)
    inputs = inputs_of(sources)
    check_apart(inputs, output, config)
    root = inputs.root
    studies = studies_by(config.studies, root)
    left_out: dict[Path, None] = {}
    reader = ctx.with_resource(open_reader(config))  # it starts while the networks are opened
    # Refuses an empty folder before anything is opened or written.
    paths = inputs.files(output, left_out)
    folder = weights or default_weights()
    networks = load_bundles(folder, config)
    if not quiet:
        click.echo(weights_line(folder, networks))
    if networks.ungated:
        logging.getLogger(__name__).warning("%s", networks.ungated)

    summary = Summary(root, left_out)
    total = sum(1 for _ in inputs.files(output)) if visible() and not quiet else None
    objects = dicom_writer(networks, config)
    with ExitStack() as stack:
        hold(stack, output)
        kept, unfinished = plan(output, about(inputs, networks, config), restart=not resume)
        check_writable(output)
        by_study = studies_writer(output, root, networks, config)
        progress = stack.enter_context(on_stderr(total, quiet))
        left = paths
        if unfinished:
            left = keep(
                islice(read(output), 1, None), left, output, root, config.reader_threads,
                partial(_count, studies, [by_study, summary], objects, progress), kept,
            )  # fmt: skip
            if not quiet:
                click.echo(told(output, kept), err=True)
        journal = stack.enter_context(Journal(output, root, kept.journal))
        stack.enter_context(_resumable(journal, ctx))
        writers = [*open_writers(stack, output, root, networks, config, kept)]
        streams = [writer.stream for writer in writers if isinstance(writer, Streaming)]
        journal.follow(streams, kept.outputs, objects)
        writers += [stack.enter_context(by_study), summary, *([objects] if objects else [])]
        rendered = config.report or config.shown_heatmaps != "none"
        outcomes = run(
            left, networks, config, rendered=rendered, study_of=studies.key, reader=reader
        )
        # Before the writers: what stops the run must find no thread at work when it ends.
        stack.enter_context(closing(outcomes))
        _write_all(outcomes, [*writers, journal], progress)
    studies.warn()
    if not quiet:
        summary.print_to(stdout_console(), output / TABLE, by_study.told, networks.ungated)
        if objects:
            click.echo(objects.summary)
    ctx.exit(1 if summary.failed else 0)


def _count(
    studies: Studies,
    counting: Iterable[ReportWriter],
    objects: DicomWriter | None,
    progress: Progress,
    done: Done,
) -> None:
    """Tell those who count, and write nothing, of a file that an earlier process wrote down."""
    studies.key(done.path, None)
    for outcome in done.outcomes:
        for writer in counting:
            writer.write(outcome)
    if objects:
        for notes in done.notes:
            objects.recall(notes)
    progress.advance()


@contextmanager
def _resumable(journal: Journal, ctx: click.Context) -> Iterator[None]:
    """Say on being stopped that the run can go on."""
    try:
        with stoppable():
            yield
    except KeyboardInterrupt as stop:
        click.echo(stopped(journal.files), err=True)
        if isinstance(stop, Stopped):
            ctx.exit(Stopped.exit_code)
        raise


def _write_all(
    outcomes: Iterator[Outcome], writers: Iterable[ReportWriter], progress: Progress
) -> None:
    last = None
    for outcome in outcomes:
        for writer in writers:
            writer.write(outcome)
        if outcome.image.path != last:  # the frames of one file count once
            last = outcome.image.path
            progress.advance()
