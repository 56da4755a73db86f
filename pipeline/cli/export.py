"""``fxpipe export``: finished runs become bundles, or are refused; with --fused one graph."""

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
    help="A run, or a folder of runs: then all of them; repeatable.",
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
    help="What to write; repeatable.  [default: int8 and fp16; with --fused all that are there]",
)
@click.option(
    "--again",
    is_flag=True,
    help="Export the float form of --weights once more, in place of runs.",
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

    A stage that decides otherwise than the trained one, outside the stated margin, is refused,
    and the weights folder stays as it was. With --again, the networks of the weights folder itself
    are exported, say to another precision. With --fused, trunk and all heads become one graph that
    runs in any ONNX host, compared with the stages in the same way.
    """
    logging_setup.configure()
    fused = _fused_export.Given(**given)
    named = {
        name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    if again and "folders" in named:
        raise UsageError("--again takes the place of --run", "leave one of them out")
    with_runs = not fused.fused or again or "folders" in named
    idle = [f"--{name}" for key, name in (("index", "index"), ("settings", "set")) if key in named]
    if idle and not with_runs:
        raise UsageError(f"{' and '.join(idle)} changes nothing that is fused", "add --run")
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
    """Write the bundles of all runs; of the weights folder itself where there are none."""
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
    """Names of the specialists that share a calibration: fitted numbers are not equal by chance."""
    pairs: dict[tuple[float, ...], list[str]] = {}
    for run in runs:
        if run.stage.region is not None:
            pair = (*run.result["temperature"], *run.result["bias"])
            pairs.setdefault(pair, []).append(run.stage.name)
    return [names for pair, names in pairs.items() if len(names) > 1 and pair != (1.0, 0.0)]
