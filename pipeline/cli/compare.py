"""``fxpipe compare``: several systems, one table of pictures, one table of figures."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import click

from .. import logging_setup
from ..config import RunConfig, load
from ..progress import on_stderr
from ._extras import needs
from ._paths import PathOption

_FILE = PathOption(dir_okay=False)
_FOLDER = PathOption(file_okay=False)


@click.command(name="compare")
@click.argument("systems", nargs=-1, type=_FILE)
@click.option(
    "--index", "source", type=_FILE, default=Path("index.csv"), show_default=True,
    help="Table made by `fxpipe index`: all systems learn from it and are tested on it.",
)  # fmt: skip
@click.option(
    "--weights", multiple=True, type=_FOLDER,
    help="A weights folder that exists, as one more system; repeatable.",
)  # fmt: skip
@click.option(
    "--split", "splits", type=click.Choice(["table", "patient", "picture"]), multiple=True,
    default=("table",), show_default=True,
    help="How the pictures are divided: as the table says, by patient (group), or by picture, "
    "which leaks; repeatable, to show the difference.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(min=0), default=7, show_default=True, help="Of --split."
)
@click.option(
    "--output", type=_FOLDER, default=Path("comparison"), show_default=True,
    help="Folder for runs, weights, evaluations and the table; what is finished in it is kept.",
)  # fmt: skip
@click.option(
    "--set", "settings", multiple=True, metavar="[SYSTEM:]KEY=VALUE",
    help="A setting of every system, such as fracture.optim.epochs=2, or of one, such as "
    "cnn-gap:fracture.optim.epochs=2; repeatable.",
)  # fmt: skip
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("--allow-leaks", is_flag=True, help="Compare although the table itself leaks.")
@click.option("--quiet", is_flag=True, help="No progress and no figures by epoch.")
def command(
    systems: tuple[Path, ...], source: Path, weights: tuple[Path, ...], splits: tuple[str, ...],
    seed: int, output: Path, settings: tuple[str, ...], device: str, allow_leaks: bool,
    quiet: bool,
) -> None:  # fmt: skip
    """Train SYSTEMS (files such as those in configs/systems/) on one table and print one table.

    Each is trained, exported through the parity gate and evaluated as shipped, on the same test
    pictures; the same command goes on where it was stopped. Beside the figures stand what each
    must beat, and what each costs.
    """
    if not systems and not weights:
        raise click.UsageError("no system: name files such as configs/systems/two-step-mura.toml")
    with needs("train"):
        import stages.training.run  # noqa: F401  (brings Lightning, which sets up logging)
        from stages.experiments.compare_systems import (
            compare_system,
            measure,
            resplit,
            source_commit,
            write_comparison,
        )
        from stages.experiments.system_configs import read_system

        from ._training import read_training_table, refuse_leaks
    logging_setup.configure(logging.WARNING if quiet else logging.INFO)
    read = {file: read_system(file, words) for file, words in by_system(systems, settings)}
    table = read_training_table(source, allow_leaks)
    config = load(RunConfig, None, (), {"device": device})
    origin = {
        "table": f"{source.name} {table.digest[:12]}",
        "split": " and ".join(splits),
        "seed": seed,
        "settings": " ".join(settings) or "as in the files",
        "commit": source_commit(),
    }
    output.mkdir(parents=True, exist_ok=True)
    refuse_leaks([table], output / "cache", allow_leaks or set(splits) == {"picture"}, quiet)
    rows = []
    with on_stderr(None, quiet, "batches") as progress:
        for split in splits:
            divided = resplit(table, split, seed)  # type: ignore[arg-type]
            ending = "" if split == "table" else f"-{split}"
            told = "" if split == "table" else f", split by {split}"
            for file, system in read.items():
                named = system.model_copy(update={"title": system.title + told})
                folder = output / f"{file.stem}{ending}"
                rows.append(compare_system(folder, named, divided, config, progress))
            for place in weights:
                folder = output / f"weights-{place.resolve().name}{ending}"
                title = f"{place.name} (as it is){told}"
                rows.append(measure(folder, place, title, divided, config, progress))
    click.echo(write_comparison(rows, output, origin), nl=False)
    click.echo(f"\n{output / 'comparison.md'}")


def by_system(
    systems: tuple[Path, ...], settings: tuple[str, ...]
) -> Iterator[tuple[Path, list[str]]]:
    """Each system with its settings: those of every system, then its own.

    Raises:
        click.UsageError: A setting is of a system that is not there.
    """
    own: dict[str, list[str]] = {file.stem: [] for file in systems}
    shared = []
    for word in settings:
        name, colon, _ = word.partition("=")[0].partition(":")
        if not colon:
            shared.append(word)
        elif name in own:
            own[name].append(word.removeprefix(f"{name}:"))
        else:
            raise click.UsageError(f"--set {word}: no system {name}; there is {', '.join(own)}")
    for file in systems:
        yield file, [*shared, *own[file.stem]]
