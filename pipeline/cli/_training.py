"""Shared by the commands that train: options, settings, and a table checked for leaks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import logging_setup
from ..config import load
from ..domain import ANY_REGION, REGIONS
from ..progress import on_stderr
from ._extras import needs
from ._paths import PathOption
from ._weights_folder import default_weights

if TYPE_CHECKING:
    from stages.samples import Index
    from stages.settings import FractureConfig, RegionConfig

PATH = PathOption()
FILE = PathOption(dir_okay=False)

INIT = click.option(
    "--init",
    help="Initial weights: hub, package:NAME, none, shipped, a safetensors file or a run "
    "(setting model.init).",
)
REGION = click.option(
    "--region", "name", type=click.Choice([*REGIONS, ANY_REGION]), required=True,
    help="Region of the specialist.",
)  # fmt: skip
FROM = click.option(
    "--from", "source", type=PATH,
    help="Region run to start from; shipped: continue with a shipped specialist; none: an "
    "independent network.  [default: runs/region; for --region all none]",
)  # fmt: skip


def options(*more: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that adds the options of every training command.

    Args:
        more: Options of this command, placed after ``--index``.
    """
    index = click.option(
        "--index", type=FILE, default=Path("index.csv"), show_default=True,
        help="Table made by `fxpipe index`.",
    )  # fmt: skip
    shared = (
        click.option("--config", "file", type=FILE, help="TOML file with settings."),
        click.option(
            "--set", "settings", multiple=True, metavar="KEY=VALUE",
            help="One setting, such as optim.epochs=20; repeatable.",
        ),
        click.option(
            "--allow-leaks", is_flag=True,
            help="Train even if the same picture is in two splits, or has two labels.",
        ),
        click.option("--quiet", is_flag=True, help="No progress and no figures by epoch."),
    )  # fmt: skip

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed((index, *more, *shared)):
            function = option(function)
        return function

    return decorate


def initial_settings(init: str | None) -> dict[str, object]:
    """The setting that ``--init`` stands for, by its key; empty without the option."""
    return {} if init is None else {"model.init": _resolve_shipped(init)}


def _resolve_shipped(source: str | Path) -> str:
    """The source as text; the word shipped is replaced by the default weights folder."""
    return str(default_weights()) if str(source) == "shipped" else str(source)


def fracture_settings(name: str, source: Path | None, init: str | None) -> dict[str, object]:
    """The settings of a specialist according to the options, by key.

    Args:
        name: Its region, or all.
        source: The run or weights that it starts from; None for the default.
        init: Initial weights of an independent network.

    Raises:
        click.UsageError: Both ``source`` and ``init`` are given.
    """
    if init is not None and source is not None and str(source) != "none":
        raise click.UsageError(
            "--init and --from exclude each other: --init starts an independent network, --from "
            "continues one"
        )
    settings: dict[str, object] = {"region": name, **initial_settings(init)}
    if init is not None or (source is None and name == ANY_REGION):
        source = Path("none")
    if source is not None:
        settings["region_run"] = _resolve_shipped(source)
    return settings


def settings_of(
    stage: str, file: Path | None, settings: tuple[str, ...], given: Mapping[str, object],
    quiet: bool,
) -> RegionConfig | FractureConfig:  # fmt: skip
    """The checked settings of a stage. Also sets up logging, after Lightning's own setup.

    Args:
        stage: ``region``, or a specialist's name.
        file: TOML file.
        settings: Values of ``--set``.
        given: Settings from other options, by key; they override all others.
        quiet: Whether only warnings are logged.

    Raises:
        ConfigError: Lists every fault.
    """
    with needs("train"):
        import stages.training.run  # noqa: F401  (imports Lightning)
        from stages.settings import FractureConfig, RegionConfig
    logging_setup.configure(logging.WARNING if quiet else logging.INFO)
    if stage == "region":
        return load(RegionConfig, file, settings, given)
    return load(FractureConfig, file, settings, given)


def warn_loudly(warnings: Iterable[str]) -> None:
    """Print warnings in bold red at the end of the output."""
    for warning in warnings:
        click.secho(f"WARNING: {warning}", fg="red", bold=True, err=True)


def read_training_table(source: Path, allow_leaks: bool) -> Index:
    """The table; unless leaks are allowed, checked for those that its columns show.

    Raises:
        InputMissingError: The file does not exist.
        IndexFaultsError: Lists every fault.
    """
    from stages.data.index import read_index, read_table

    return read_table(source) if allow_leaks else read_index(source)


def refuse_leaks(tables: list[Index], cache: Path, allow_leaks: bool, quiet: bool) -> None:
    """Compare all pictures, once for all tables, to find leaks that the columns do not show.

    Raises:
        IndexFaultsError: There are leaks, and they are not allowed.
    """
    from stages.data import leak_check

    with on_stderr(len(tables[0].samples), quiet, "pictures") as progress:
        leak_check.refuse_leaks(tables, cache, allow_leaks, progress)
