"""``fxpipe compare``: trains and evaluates several systems on the same pictures."""

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
    help="An existing weights folder, as another system; repeatable.",
)  # fmt: skip
@click.option(
    "--split", "splits", type=click.Choice(["table", "patient", "picture"]), multiple=True,
    default=("table",), show_default=True,
    help="How the pictures are divided: as in the table, by patient (group), or by picture, "
    "which leaks; repeatable, to show the difference.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(min=0), default=7, show_default=True, help="Seed of --split."
)
@click.option(
    "--output", type=_FOLDER, default=Path("comparison"), show_default=True,
    help="Folder for runs, weights, evaluations and the table; finished parts are kept.",
)  # fmt: skip
@click.option(
    "--set", "settings", multiple=True, metavar="[SYSTEM:]KEY=VALUE",
    help="A setting of all systems, such as fracture.optim.epochs=2, or of one, such as "
    "cnn-gap:fracture.optim.epochs=2; repeatable.",
)  # fmt: skip
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("--allow-leaks", is_flag=True, help="Compare even if the table itself leaks.")
@click.option("--quiet", is_flag=True, help="No progress and no figures by epoch.")
def command(
    systems: tuple[Path, ...], source: Path, weights: tuple[Path, ...], splits: tuple[str, ...],
    seed: int, output: Path, settings: tuple[str, ...], device: str, allow_leaks: bool,
    quiet: bool,
) -> None:  # fmt: skip
    """Train SYSTEMS (files such as those in configs/systems/) on one table; print their figures.

    Each system is trained, exported with the parity check and evaluated as shipped, on the same
    test pictures. The table shows figures, baselines and costs. If the command is interrupted, the
    same command resumes.
    """
    if not systems and not weights:
        raise click.UsageError(
            "no system is given; name files such as configs/systems/two-step-mura.toml"
        )
    with needs("train"):
        import stages.training.run  # noqa: F401  (imports Lightning, which sets up logging)
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
    by_file = {file: read_system(file, words) for file, words in by_system(systems, settings)}
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
            note = "" if split == "table" else f", split by {split}"
            for file, system in by_file.items():
                named = system.model_copy(update={"title": system.title + note})
                folder = output / f"{file.stem}{ending}"
                rows.append(compare_system(folder, named, divided, config, progress))
            for source_weights in weights:
                folder = output / f"weights-{source_weights.resolve().name}{ending}"
                title = f"{source_weights.name} (as it is){note}"
                rows.append(measure(folder, source_weights, title, divided, config, progress))
    click.echo(write_comparison(rows, output, origin), nl=False)
    click.echo(f"\n{output / 'comparison.md'}")


def by_system(
    systems: tuple[Path, ...], settings: tuple[str, ...]
) -> Iterator[tuple[Path, list[str]]]:
    """Each system with its settings: those for all systems, then those for this one.

    Raises:
        click.UsageError: A setting names a system that is not given.
    """
    specific: dict[str, list[str]] = {file.stem: [] for file in systems}
    shared = []
    for word in settings:
        name, colon, _ = word.partition("=")[0].partition(":")
        if not colon:
            shared.append(word)
        elif name in specific:
            specific[name].append(word.removeprefix(f"{name}:"))
        else:
            raise click.UsageError(
                f"--set {word}: there is no system {name}; expected one of {', '.join(specific)}"
            )
    for file in systems:
        yield file, [*shared, *specific[file.stem]]
