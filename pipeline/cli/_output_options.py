"""The outputs of ``fxpipe run`` on the command line: their options, and checks before the start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import click

from ..config import RunConfig
from ..errors import UsageError
from ..lock import exclusive
from ..report.outputs import OUTPUTS, Output
from ._extras import needs
from ._inputs import Inputs
from ._paths import PathOption


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with the option of every output that has one."""
    for output in reversed(OUTPUTS):
        if output.setting:
            words: dict[str, Any] = {"help": output.help, **_kind_of(output.setting)}
            if output.metavar:
                words["metavar"] = output.metavar
            command = click.option(output.option, output.setting, **words)(command)
    return command


def _kind_of(setting: str) -> dict[str, Any]:
    """What click has to know of a setting; an option that is not given is None."""
    annotation = RunConfig.model_fields[setting].annotation
    first, *_ = get_args(annotation) or (annotation,)  # without "or None"
    if first is bool:
        return {"is_flag": True, "default": None}
    if get_origin(first) is Literal:
        return {"type": click.Choice(get_args(first))}
    is_path = get_origin(first) is Annotated and get_args(first)[0] is Path
    return {"type": PathOption() if is_path else str}


def asked_outputs(config: RunConfig) -> list[Output]:
    """The outputs that a run with these settings writes, their writers imported.

    Raises:
        MissingExtraError: A writer needs an extra that is not installed.
    """
    asked = [output for output in OUTPUTS if output.asked(config)]
    for output in asked:
        with needs(output.extra):
            output.load()
    return asked


def check_apart(inputs: Inputs, output: Path, config: RunConfig) -> None:
    """Results among the files that are read would be input of the next run.

    Raises:
        UsageError: The output folder is an input folder, or an output elsewhere would lie among
            the originals.
    """
    for source in inputs.paths:
        if source.is_dir() and output.resolve() == source.resolve():
            raise UsageError(f"--output {output} is the input folder", "name another --output")
        folder = source.resolve() if source.is_dir() else source.resolve().parent
        for one, place in _elsewhere(OUTPUTS, config):
            there = place.resolve()
            if (source.is_dir() and there.is_relative_to(folder)) or there == folder:
                raise UsageError(
                    f"{one.option} {place} is in the input folder, wanted one apart from all "
                    "originals",
                    f"name another {one.option}",
                )


def make_folders(asked: Sequence[Output], config: RunConfig) -> None:
    """Make the folders of outputs that go elsewhere.

    Raises:
        UsageError: One of them cannot be made.
    """
    for one, place in _elsewhere(asked, config):
        with _named(one.option, place):
            place.mkdir(parents=True, exist_ok=True)


def _elsewhere(outputs: Sequence[Output], config: RunConfig) -> Iterator[tuple[Output, Path]]:
    for output in outputs:
        place = output.elsewhere(config)
        if place is not None:
            yield output, place


def hold(stack: ExitStack, output: Path) -> None:
    """Make the folder, and keep other processes out of it until the stack is closed.

    Raises:
        UsageError: It cannot be written, or another process holds it.
    """
    with _named("--output", output):
        output.mkdir(parents=True, exist_ok=True)
        stack.enter_context(exclusive(output))


def check_writable(output: Path, asked: Sequence[Output]) -> None:
    """See that the files can be written; a spreadsheet may have a table open.

    Raises:
        UsageError: They cannot.
    """
    with _named("--output", output):
        for one in asked:
            if one.is_file:
                (output / one.name).touch()


@contextmanager
def _named(option: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{option} {folder}: cannot be written: {error.strerror}", f"name another {option}"
        ) from error
