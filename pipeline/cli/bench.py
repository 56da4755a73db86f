"""``fxpipe bench``: the speed of fxpipe on this machine, compared with other implementations."""

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
from ..bench.rounds import Contender, ContenderSpec, Score, run_rounds
from ..bench.table import print_table
from ..bundle import Precision, write_json
from ..config import Device, RunConfig, cores, load
from ..errors import DeviceError, FxpipeError, StartError, UsageError
from ..progress import on_stderr
from ..runtime.providers import resolve_device
from ..weights.manifest import Manifest, read_manifest
from ._bench_contenders import (
    Form,
    export_whole_networks,
    open_fxpipe,
    open_onnx,
    open_torch_batched,
    open_torch_loop,
)
from ._console import stdout_console
from ._paths import PathOption, only_one
from ._weights_folder import default_weights

_FILE = PathOption(dir_okay=False)
_PATH = PathOption()

_BASELINES: Mapping[str, Form] = {
    REFERENCE: "safetensors",
    "torch-batched": "safetensors",
    "onnx-fp32": "onnx",
}
"""The implementations that fxpipe is compared with, and the file form of their networks."""


@click.command(name="bench")
@click.option(
    "--input", "source", type=_PATH, required=True, multiple=True, callback=only_one,
    help="A folder of radiographs; files that cannot be decoded are skipped.",
)  # fmt: skip
@click.option(
    "--weights", type=_PATH, envvar="FXPIPE_WEIGHTS",
    help="Folder with a manifest.json.  [env: FXPIPE_WEIGHTS; default: ./weights]",
)  # fmt: skip
@click.option(
    "--pictures", type=click.IntRange(min=1), default=200, show_default=True,
    help="Number of pictures to read; if the folder has fewer, files are read again.",
)  # fmt: skip
@click.option(
    "--rounds", type=click.IntRange(min=1), default=5, show_default=True,
    help="Number of times that each contender does the job.",
)  # fmt: skip
@click.option(
    "--device", type=click.Choice(get_args(Device)),
    help="Where the networks run; auto measures the CPU, and CUDA if it works.",
)  # fmt: skip
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="A setting of `fxpipe run`, such as batch_size=16; repeatable.",
)  # fmt: skip
@click.option(
    "--only", multiple=True, metavar="NAME",
    help="Measure only this contender, or those whose names start with it, such as fxpipe-int8 or "
    "torch; repeatable.",
)  # fmt: skip
@click.option(
    "--fps-limit", is_flag=True,
    help="Also measure fxpipe's networks alone, on pictures in memory: the upper limit of any run.",
)  # fmt: skip
@click.option(
    "--output", type=_FILE, default=Path("bench.json"), show_default=True,
    help="JSON file with every figure.",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="No progress and no table; only write the file.")
def command(
    source: Path, weights: Path | None, pictures: int, rounds: int, device: Device | None,
    settings: tuple[str, ...], only: tuple[str, ...], fps_limit: bool, output: Path, quiet: bool,
) -> None:  # fmt: skip
    """Measure the whole job, from files to rows, for fxpipe and for other implementations.

    \b
    fxpipe-PRECISION-DEVICE  this program
    torch-loop-DEVICE        two complete float networks in torch, picture by picture
    torch-batched-DEVICE     the same in batches, channels last
    onnx-fp32-DEVICE         the same two networks in ONNX Runtime, picture by picture

    Each contender has a separate process; they take turns on the same files at the same input size.
    Close other programs on the machine. The contenders other than fxpipe need the training extras.
    """  # noqa: D301  (\b is click's mark)
    logging_setup.configure()
    config = load(RunConfig, None, settings, {} if device is None else {"device": device})
    folder = weights or default_weights()
    manifest = read_manifest(folder)
    _check_writable(output)
    job = choose_job(source, pictures)
    with TemporaryDirectory(prefix="fxpipe-bench-") as temporary:
        all_entrants = list(_entrants(folder, Path(temporary), manifest, config, job.root))
        entrants = _chosen(all_entrants, only)
        steps = 1 + (rounds + 1) * sum(entrant.opens is not None for entrant in entrants)
        with on_stderr(steps, quiet, "jobs") as progress:
            entrants = _with_networks(entrants, folder, Path(temporary))
            progress.advance()
            scores, reasons = run_rounds(
                entrants, job, rounds, config.batch_size, fps_limit, progress
            )
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
    weights: Path, temporary: Path, manifest: Manifest, config: RunConfig, root: Path
) -> Iterator[ContenderSpec]:
    """All contenders: those that can be measured, and those that cannot, with the reason.

    Args:
        weights: Folder of the manifest.
        temporary: Folder for the exported whole networks.
        manifest: Lists the bundles that exist.
        config: Device and precision, or auto.
        root: Folder of the pictures.

    Raises:
        DeviceError: The named device does not work.
    """
    devices, unavailable = _devices(config.device)
    precisions = [Precision(config.precision)] if config.precision != "auto" else list(Precision)
    complete = manifest.precisions
    absent = f"not available for every bundle; available: {', '.join(complete) or 'none'}"
    for device in (*devices, *unavailable):
        for precision in precisions:
            settings = config.model_copy(update={"device": device, "precision": precision})
            reason = unavailable.get(device) or ("" if precision in complete else absent)
            yield _entrant(
                f"fxpipe-{precision.value}-{device}", device, reason,
                partial(open_fxpipe, weights, settings, root),
            )  # fmt: skip
    plain: dict[Device, None] = dict.fromkeys(
        "cpu" if device == "cpu" else "cuda" for device in (*devices, *unavailable)
    )
    for device in plain:
        for kind, opens in _baselines(temporary, device, config.batch_size).items():
            yield _entrant(
                f"{kind}-{device}", device, unavailable.get(device, ""),
                opens,
            )  # fmt: skip


def _baselines(temporary: Path, device: Device, batch_size: int) -> dict[str, partial[Contender]]:
    """The function that opens each of :data:`_BASELINES`."""
    return {
        REFERENCE: partial(open_torch_loop, temporary, device),
        "torch-batched": partial(open_torch_batched, temporary, device, batch_size),
        "onnx-fp32": partial(open_onnx, temporary, device),
    }


def _entrant(name: str, device: Device, reason: str, opens: partial[Contender]) -> ContenderSpec:
    return ContenderSpec(name, device, None if reason else opens, reason)


def _devices(requested: Device) -> tuple[list[Device], dict[Device, str]]:
    """Devices that work, and the reasons why the other devices of ``auto`` do not."""
    if requested != "auto":
        return [resolve_device(requested)], {}
    try:
        return ["cpu", resolve_device("cuda")], {}
    except DeviceError as error:
        return ["cpu"], {"cuda": str(error)}


def _with_networks(
    entrants: Sequence[ContenderSpec], weights: Path, temporary: Path
) -> list[ContenderSpec]:
    """Export the whole networks that the baselines need; on failure these entrants get the reason.

    The export runs in a separate process, so that its memory does not count for any contender.
    """
    able = [entrant for entrant in entrants if entrant.opens is not None]
    kinds = {e.name: next((k for k in _BASELINES if _is_of(e.name, k)), None) for e in able}
    forms = {_BASELINES[kind] for kind in kinds.values() if kind is not None}
    if not forms:
        return list(entrants)
    reason = ""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            pool.submit(export_whole_networks, weights, temporary, forms).result()
        except FxpipeError as error:
            reason = f"{error} ({error.hint})" if error.hint else str(error)
        except BrokenProcessPool:
            reason = (
                "the process that exports its networks was killed, perhaps due to lack of memory"
            )
    if not reason:
        return list(entrants)
    return [replace(e, opens=None, reason=reason) if kinds.get(e.name) else e for e in entrants]


def _chosen(entrants: Sequence[ContenderSpec], only: Sequence[str]) -> list[ContenderSpec]:
    """The entrants that ``--only`` names, in part or in full; all without the option.

    Raises:
        UsageError: No entrant has that name.
    """
    for name in only:
        if not any(_is_of(entrant.name, name) for entrant in entrants):
            raise UsageError(
                f"--only {name}: there is no such contender; expected one of "
                f"{', '.join(entrant.name for entrant in entrants)}"
            )
    return [e for e in entrants if not only or any(_is_of(e.name, name) for name in only)]


def _is_of(name: str, beginning: str) -> bool:
    return name == beginning or name.startswith(f"{beginning}-")


def _check_writable(output: Path) -> None:
    """Check before the measurement, which can take hours, that the file can be written.

    Raises:
        UsageError: It cannot.
    """
    existed = output.exists()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("a"):
            pass
        if not existed:
            output.unlink()
    except OSError as error:
        raise UsageError(
            f"--output {output}: cannot be written: {error.strerror}", "name another --output"
        ) from error


def _origin(
    manifest: Manifest, config: RunConfig, job: Job, rounds: int, scores: Sequence[Score]
) -> dict[str, Any]:
    """The conditions of the measurement, as JSON values."""
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
        *([f"{left_out} skipped (cannot be decoded)"] if left_out else []),
        f"{sizes}",
        f"batches of {origin['settings']['batch_size']}",
        f"{rounds} round" + ("s" if rounds > 1 else ""),
        f"{host['processor'] or 'unknown processor'}, {host['cores']} cores",
        *([host["gpu"]] if host["gpu"] else []),
    ]
    return "; ".join(parts)
