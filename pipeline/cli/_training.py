"""What the commands that train have in common: options, settings, and a table without leaks."""

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
    help="hub, package:NAME, none, shipped, a safetensors file or a run: the setting model.init.",
)
REGION = click.option(
    "--region", "name", type=click.Choice([*REGIONS, ANY_REGION]), required=True,
    help="Whose specialist this is.",
)  # fmt: skip
FROM = click.option(
    "--from", "source", type=PATH,
    help="Region run; shipped: go on with a shipped specialist; none: a network of its own.  "
    "[default: runs/region; for --region all none]",
)  # fmt: skip


def options(*more: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options that every training command takes, and some of its own after the first."""
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
            help="Train although the same picture is in two splits, or has two labels.",
        ),
        click.option("--quiet", is_flag=True, help="No progress and no figures by epoch."),
    )  # fmt: skip

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed((index, *more, *shared)):
            function = option(function)
        return function

    return decorate


def initial_settings(init: str | None) -> dict[str, object]:
    """The setting that ``--init`` asks for, by its key."""
    return {} if init is None else {"model.init": _place(init)}


def _place(source: str | Path) -> str:
    """A setting that may name a weights folder; the word shipped becomes the one in use."""
    return str(default_weights()) if str(source) == "shipped" else str(source)


def fracture_settings(name: str, source: Path | None, init: str | None) -> dict[str, object]:
    """The settings of a specialist that the options ask for, by key.

    Args:
        name: Its region, or all.
        source: What it goes on from; None for the default.
        init: Initial weights of a network of its own.

    Raises:
        click.UsageError: It is to go on from something and to start by itself.
    """
    if init is not None and source is not None and str(source) != "none":
        raise click.UsageError("--init starts a network of its own, --from goes on from one")
    found = {"region": name, **initial_settings(init)}
    if init is not None or (source is None and name == ANY_REGION):
        source = Path("none")
    if source is not None:
        found["region_run"] = _place(source)
    return found


def settings_of(
    stage: str, file: Path | None, settings: tuple[str, ...], given: Mapping[str, object],
    quiet: bool,
) -> RegionConfig | FractureConfig:  # fmt: skip
    """The checked settings of a stage; also sets up logging, after Lightning has done its own.

    Args:
        stage: ``region``, or a specialist's name.
        file: TOML.
        settings: Those of ``--set``.
        given: Those of other options, by key; they stand above all.
        quiet: Whether only warnings are logged.

    Raises:
        ConfigError: With every fault.
    """
    with needs("train"):
        import stages.training.run  # noqa: F401  (brings Lightning)
        from stages.settings import FractureConfig, RegionConfig
    logging_setup.configure(logging.WARNING if quiet else logging.INFO)
    if stage == "region":
        return load(RegionConfig, file, settings, given)
    return load(FractureConfig, file, settings, given)


def warn_loudly(warnings: Iterable[str]) -> None:
    """Print what must not be missed, below everything else."""
    for words in warnings:
        click.secho(f"WARNING: {words}", fg="red", bold=True, err=True)


def read_training_table(source: Path, allow_leaks: bool) -> Index:
    """The table, checked for leaks that it shows by itself unless they are allowed.

    Raises:
        InputMissingError: There is no such file.
        IndexFaultsError: With every fault found.
    """
    from stages.data.index import read_index, read_table

    return read_table(source) if allow_leaks else read_index(source)


def refuse_leaks(tables: list[Index], cache: Path, allow_leaks: bool, quiet: bool) -> None:
    """Look at every picture, once for all tables, for leaks that only pictures show.

    Raises:
        IndexFaultsError: There are some, and they are not allowed.
    """
    from stages.data import leak_check

    with on_stderr(len(tables[0].samples), quiet, "pictures") as progress:
        leak_check.refuse_leaks(tables, cache, allow_leaks, progress)
