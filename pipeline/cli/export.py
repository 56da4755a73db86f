"""``fxpipe export``: turns finished runs into bundles after a parity check; --fused: one graph."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from .. import logging_setup
from ..bundle import Precision
from ..config import load
from ..errors import UsageError
from ..progress import on_stderr
from . import _fused_export
from ._extras import needs
from ._paths import PathOption
from ._training import warn_loudly
from ._weights_folder import default_weights

if TYPE_CHECKING:
    from stages.training.finished_run import Run

_PATH = PathOption()


@click.command(name="export")
@click.option(
    "--run",
    "folders",
    type=_PATH,
    multiple=True,
    default=(Path("runs"),),
    show_default=True,
    help="A run, or a folder of which all runs are exported; repeatable.",
)
@click.option(
    "--index",
    type=PathOption(dir_okay=False),
    default=Path("index.csv"),
    show_default=True,
    help="The table that the runs were trained on.",
)
@click.option(
    "--weights",
    type=_PATH,
    default=Path("weights"),
    show_default=True,
    help="Folder for the bundles and their manifest.",
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice([p.value for p in Precision]),
    multiple=True,
    help="Precision to write; repeatable.  [default: int8 and fp16; with --fused all available]",
)
@click.option(
    "--again",
    is_flag=True,
    help="Export the float form of --weights again, instead of runs.",
)
@_fused_export.options
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="One setting.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    folders: tuple[Path, ...],
    index: Path,
    weights: Path,
    precisions: tuple[str, ...],
    again: bool,
    settings: tuple[str, ...],
    **given: Any,
) -> None:
    """Export runs to ONNX and compare them with the trained networks on real pictures.

    If a stage decides differently from the trained one, outside the stated margin, the export is
    refused and the weights folder does not change. With --again, the networks of the weights folder
    itself are exported, for example to another precision. With --fused, trunk and all heads become
    one graph that runs in any ONNX host, compared with the stages in the same way.
    """
    logging_setup.configure()
    fused = _fused_export.FusedOptions(**given)
    named = {
        name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    if again and "folders" in named:
        raise UsageError("--again and --run exclude each other", "use only one of them")
    with_runs = not fused.fused or again or "folders" in named
    unused = [
        f"--{name}" for key, name in (("index", "index"), ("settings", "set")) if key in named
    ]
    if unused and not with_runs:
        raise UsageError(f"{' and '.join(unused)}: no effect on --fused without --run", "add --run")
    if not with_runs and "weights" not in named:
        weights = default_weights()
    order = _fused_export.make_order(fused, weights, precisions) if fused.fused else None
    if with_runs:
        _export(None if again else folders, index, weights, precisions, settings)
    if order is not None:
        _fused_export.fuse(order, weights)


def _export(
    folders: tuple[Path, ...] | None, index: Path, weights: Path, precisions: tuple[str, ...],
    settings: tuple[str, ...],
) -> None:  # fmt: skip
    """Write the bundles of all runs, or those of the weights folder itself if folders is None."""
    with needs("train"):
        from stages.data.index import read_index
        from stages.export.export_runs import ExportConfig, export_runs, find_runs
        from stages.export.reload import load_again
        from stages.training.finished_run import load_runs
    config = load(ExportConfig, None, settings, {"precisions": precisions} if precisions else {})
    if folders is None:
        runs = load_again(weights)
    else:
        runs = load_runs([run for folder in folders for run in find_runs(folder)])
    with on_stderr(None, False, "stages compared") as progress:
        rows = export_runs(runs, read_index(index), weights, config, progress)
    for row in rows:
        click.echo(str(row))
    for names in _pooled(runs):
        click.echo(f"{', '.join(names)}: one temperature and bias, fitted on the pictures of all")
    click.echo(f"{weights}: {len(runs)} run(s) exported")
    warn_loudly(f"{r.folder}: {words}" for r in runs for words in r.result.get("warnings", ()))


def _pooled(runs: Iterable[Run]) -> list[list[str]]:
    """Names of the specialists that share a calibration: fitted values are not equal by chance."""
    pairs: dict[tuple[float, ...], list[str]] = {}
    for run in runs:
        if run.stage.region is not None:
            pair = (*run.result["temperature"], *run.result["bias"])
            pairs.setdefault(pair, []).append(run.stage.name)
    return [names for pair, names in pairs.items() if len(names) > 1 and pair != (1.0, 0.0)]
