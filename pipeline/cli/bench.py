"""``fxpipe bench``: how fast fxpipe is here, beside what would be run otherwise."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import click

from .. import logging_setup
from ..bench import machine
from ..bench.job import Job, choose_job
from ..bench.results import REFERENCE, SCHEMA, measure
from ..bench.rounds import Contender, Entrant, Score, contend
from ..bench.table import print_table
from ..bundle import Precision, write_json
from ..config import Device, RunConfig, cores, load
from ..errors import DeviceError, FxpipeError, StartError, UsageError
from ..progress import on_stderr
from ..runtime.providers import resolve_device
from ..weights.manifest import Manifest, read_manifest
from ._bench_contenders import (
    Form,
    open_onnx,
    open_own,
    open_torch_batched,
    open_torch_loop,
    put_together,
)
from ._console import stdout_console
from ._paths import PathOption, only_one
from ._weights_folder import default_weights

_FILE = PathOption(dir_okay=False)
_PATH = PathOption()

_NAIVE: Mapping[str, Form] = {
    REFERENCE: "safetensors",
    "torch-batched": "safetensors",
    "onnx-fp32": "onnx",
}
"""What would be run otherwise, and the form of its networks."""


@click.command(name="bench")
@click.option(
    "--input", "source", type=_PATH, required=True, multiple=True, callback=only_one,
    help="A folder of radiographs; what cannot be decoded is left out.",
)  # fmt: skip
@click.option(
    "--weights", type=_PATH, envvar="FXPIPE_WEIGHTS",
    help="Folder with a manifest.json.  [env: FXPIPE_WEIGHTS; default: ./weights]",
)  # fmt: skip
@click.option(
    "--pictures", type=click.IntRange(min=1), default=200, show_default=True,
    help="How many are read; where there are fewer, files are read again.",
)  # fmt: skip
@click.option(
    "--rounds", type=click.IntRange(min=1), default=5, show_default=True,
    help="How often each contender does the job.",
)  # fmt: skip
@click.option(
    "--device", type=click.Choice(get_args(Device)),
    help="Where the networks run; auto measures the CPU, and CUDA where it works.",
)  # fmt: skip
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="A setting of `fxpipe run`, such as batch_size=16; repeatable.",
)  # fmt: skip
@click.option(
    "--only", multiple=True, metavar="NAME",
    help="A contender, or the beginning of its name, such as fxpipe-int8 or torch; repeatable.",
)  # fmt: skip
@click.option(
    "--fps-limit", is_flag=True,
    help="Measure fxpipe's networks alone too, on pictures in memory: what no run can exceed.",
)  # fmt: skip
@click.option(
    "--output", type=_FILE, default=Path("bench.json"), show_default=True,
    help="JSON file with every figure.",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="No progress and no table; the file alone.")
def command(
    source: Path, weights: Path | None, pictures: int, rounds: int, device: Device | None,
    settings: tuple[str, ...], only: tuple[str, ...], fps_limit: bool, output: Path, quiet: bool,
) -> None:  # fmt: skip
    """Measure the whole job, from files to rows, of fxpipe and of what would be run otherwise.

    \b
    fxpipe-PRECISION-DEVICE  this program
    torch-loop-DEVICE        two whole float networks in torch, picture by picture
    torch-batched-DEVICE     the same in batches, channels last
    onnx-fp32-DEVICE         the same two networks in ONNX Runtime, picture by picture

    Each in a process of its own, in turns, on the same files at the same input size. Close what
    else runs on the machine. The contenders beside fxpipe need the training extras.
    """  # noqa: D301  (click's own mark)
    logging_setup.configure()
    config = load(RunConfig, None, settings, {} if device is None else {"device": device})
    folder = weights or default_weights()
    manifest = read_manifest(folder)
    _check_writable(output)
    job = choose_job(source, pictures)
    with TemporaryDirectory(prefix="fxpipe-bench-") as place:
        everybody = list(_entrants(folder, Path(place), manifest, config, job.root))
        entrants = _chosen(everybody, only)
        steps = 1 + (rounds + 1) * sum(entrant.opens is not None for entrant in entrants)
        with on_stderr(steps, quiet, "jobs") as progress:
            entrants = _made_ready(entrants, folder, Path(place))
            progress.advance()
            scores, reasons = contend(entrants, job, rounds, config.batch_size, fps_limit, progress)
    if not scores:
        raise StartError(
            "nothing could be measured:\n"
            + "\n".join(f"  {name}: {reason}" for name, reason in reasons.items())
        )
    measured = measure(scores, cores())
    origin = _origin(manifest, config, job, rounds, scores)
    write_json(
        output,
        {
            **origin,
            "contenders": [row.to_json() for row in measured],
            "not_measured": reasons,
        },
    )
    if not quiet:
        print_table(stdout_console(), measured, reasons, _about(origin))
        click.echo(str(output))


def _entrants(
    weights: Path, place: Path, manifest: Manifest, config: RunConfig, root: Path
) -> Iterator[Entrant]:
    """Everybody who could be measured, and everybody who cannot, with the reason.

    Args:
        weights: Folder of the manifest.
        place: Folder where the whole networks will lie.
        manifest: What there is.
        config: Device and precision, or auto.
        root: Folder of the pictures.

    Raises:
        DeviceError: The device that was named does not work.
    """
    devices, lost = _devices(config.device)
    precisions = [Precision(config.precision)] if config.precision != "auto" else list(Precision)
    complete = manifest.precisions
    absent = f"not available for every bundle; available: {', '.join(complete) or 'none'}"
    for device in (*devices, *lost):
        for precision in precisions:
            settings = config.model_copy(update={"device": device, "precision": precision})
            reason = lost.get(device) or ("" if precision in complete else absent)
            yield _entrant(
                f"fxpipe-{precision.value}-{device}", device, reason,
                partial(open_own, weights, settings, root),
            )  # fmt: skip
    plain: dict[Device, None] = dict.fromkeys(
        "cpu" if device == "cpu" else "cuda" for device in (*devices, *lost)
    )
    for device in plain:
        for kind, opens in _naive(place, device, config.batch_size).items():
            yield _entrant(
                f"{kind}-{device}", device, lost.get(device, ""),
                opens,
            )  # fmt: skip


def _naive(place: Path, device: Device, batch_size: int) -> dict[str, partial[Contender]]:
    """What opens each of :data:`_NAIVE`."""
    return {
        REFERENCE: partial(open_torch_loop, place, device),
        "torch-batched": partial(open_torch_batched, place, device, batch_size),
        "onnx-fp32": partial(open_onnx, place, device),
    }


def _entrant(name: str, device: Device, reason: str, opens: partial[Contender]) -> Entrant:
    return Entrant(name, device, None if reason else opens, reason)


def _devices(asked: Device) -> tuple[list[Device], dict[Device, str]]:
    """Devices that work, and why another one of ``auto`` does not."""
    if asked != "auto":
        return [resolve_device(asked)], {}
    try:
        return ["cpu", resolve_device("cuda")], {}
    except DeviceError as error:
        return ["cpu"], {"cuda": str(error)}


def _made_ready(entrants: Sequence[Entrant], weights: Path, place: Path) -> list[Entrant]:
    """Put the whole networks together that somebody needs; who cannot have them gets the reason.

    In a process of its own, whose memory is then no contender's.
    """
    able = [entrant for entrant in entrants if entrant.opens is not None]
    kinds = {e.name: next((k for k in _NAIVE if _is_of(e.name, k)), None) for e in able}
    forms = {_NAIVE[kind] for kind in kinds.values() if kind is not None}
    if not forms:
        return list(entrants)
    reason = ""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            pool.submit(put_together, weights, place, forms).result()
        except FxpipeError as error:
            reason = f"{error} ({error.hint})" if error.hint else str(error)
        except BrokenProcessPool:
            reason = (
                "the process that puts its networks together was ended, for want of memory perhaps"
            )
    if not reason:
        return list(entrants)
    return [replace(e, opens=None, reason=reason) if kinds.get(e.name) else e for e in entrants]


def _chosen(entrants: Sequence[Entrant], only: Sequence[str]) -> list[Entrant]:
    """Those that were named, in part or in full.

    Raises:
        UsageError: Nobody has that name.
    """
    for name in only:
        if not any(_is_of(entrant.name, name) for entrant in entrants):
            raise UsageError(
                f"--only {name}: no such contender, wanted one of "
                f"{', '.join(entrant.name for entrant in entrants)}"
            )
    return [e for e in entrants if not only or any(_is_of(e.name, name) for name in only)]


def _is_of(name: str, asked: str) -> bool:
    return name == asked or name.startswith(f"{asked}-")


def _check_writable(output: Path) -> None:
    """Before hours of measuring, not after them."""
    there = output.exists()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("a"):
            pass
        if not there:
            output.unlink()
    except OSError as error:
        raise UsageError(
            f"--output {output}: cannot be written: {error.strerror}", "name another --output"
        ) from error


def _origin(
    manifest: Manifest, config: RunConfig, job: Job, rounds: int, scores: Sequence[Score]
) -> dict[str, Any]:
    """JSON: what was measured, and on what."""
    sizes = [size for score in scores for size in score.facts["input_px"]]
    return {
        "schema_version": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "versions": machine.versions(),
        "weights": {entry.file: entry.sha256 for entry in manifest.bundles},
        "settings": config.model_dump(mode="json"),
        "pictures": job.pictures,
        "files": job.files,
        "files_left_out": job.left_out,
        "rounds": rounds,
        "input_px": [list(size) for size in dict.fromkeys(map(tuple, sizes))],
    }


def _about(origin: Mapping[str, Any]) -> str:
    """The line below the table."""
    pictures, files, left_out = origin["pictures"], origin["files"], origin["files_left_out"]
    rounds, host = origin["rounds"], origin["machine"]
    sizes = " and ".join(f"{height} x {width} px" for height, width in origin["input_px"])
    parts = [
        f"{pictures} pictures of {files} files" + (", read again" if pictures > files else ""),
        *([f"{left_out} left out that cannot be decoded"] if left_out else []),
        f"{sizes}",
        f"batches of {origin['settings']['batch_size']}",
        f"{rounds} round" + ("s" if rounds > 1 else ""),
        f"{host['processor'] or 'unknown processor'}, {host['cores']} cores",
        *([host["gpu"]] if host["gpu"] else []),
    ]
    return "; ".join(parts)
