"""Options for the outputs of ``fxpipe run``, and checks of the output folders before the start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import click

from ..config import RunConfig
from ..errors import UsageError
from ..folder_run import write_errors
from ..report.outputs import OUTPUTS, Output
from ._extras import needs
from ._inputs import Inputs
from ._paths import PathOption


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option of every output that has one to a command."""
    for output in reversed(OUTPUTS):
        if output.setting:
            words: dict[str, Any] = {"help": output.help, **_kind_of(output.setting)}
            if output.metavar:
                words["metavar"] = output.metavar
            command = click.option(output.option, output.setting, **words)(command)
    return command


def _kind_of(setting: str) -> dict[str, Any]:
    """Arguments of click.option for a setting; an option that is not given is None."""
    annotation = RunConfig.model_fields[setting].annotation
    first, *_ = get_args(annotation) or (annotation,)  # without "or None"
    if first is bool:
        return {"is_flag": True, "default": None}
    if get_origin(first) is Literal:
        return {"type": click.Choice(get_args(first))}
    is_path = get_origin(first) is Annotated and get_args(first)[0] is Path
    return {"type": PathOption() if is_path else str}


def asked_outputs(config: RunConfig) -> list[Output]:
    """The outputs that a run with these settings writes; imports their writers.

    Raises:
        MissingExtraError: A writer needs an extra that is not installed.
    """
    requested = [output for output in OUTPUTS if output.requested(config)]
    for output in requested:
        with needs(output.extra):
            output.load()
    return requested


def check_apart(inputs: Inputs, output: Path, config: RunConfig) -> None:
    """Check that no results are written among the input files: the next run would read them.

    Raises:
        UsageError: The output folder is an input folder, or an output with a separate folder
            would be written among the originals.
    """
    for source in inputs.paths:
        if source.is_dir() and output.resolve() == source.resolve():
            raise UsageError(f"--output {output} is the input folder", "name another --output")
        folder = source.resolve() if source.is_dir() else source.resolve().parent
        for one, separate in _separate_folders(OUTPUTS, config):
            resolved = separate.resolve()
            if (source.is_dir() and resolved.is_relative_to(folder)) or resolved == folder:
                raise UsageError(
                    f"{one.option} {separate} is in the input folder; it must be separate from all "
                    "originals",
                    f"name another {one.option}",
                )


def make_folders(requested: Sequence[Output], config: RunConfig) -> None:
    """Make the folders of the outputs that have a separate folder.

    Raises:
        UsageError: One of them cannot be made.
    """
    for one, folder in _separate_folders(requested, config):
        with write_errors(one.option, folder):
            folder.mkdir(parents=True, exist_ok=True)


def _separate_folders(
    outputs: Sequence[Output], config: RunConfig
) -> Iterator[tuple[Output, Path]]:
    for output in outputs:
        folder = output.separate_folder(config)
        if folder is not None:
            yield output, folder
