"""What works on this machine and what does not, each with advice in words.

Nothing here may fail because something is missing: what a check needs is imported inside of it,
and an import that fails is what it has found.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from . import DISTRIBUTION, version_of, versions_of
from .errors import DeviceError, FxpipeError


class Verdict(StrEnum):
    """How grave a finding is."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"
    """`fxpipe run` cannot start."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table.

    Attributes:
        topic: What was looked at.
        verdict: See :class:`Verdict`.
        found: What is there, in words.
        advice: What to do; empty when there is nothing to be done.
    """

    topic: str
    verdict: Verdict
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """The run that is asked about.

    Attributes:
        weights: Folder that it would open.
        shown: How the folder was given, for it may lie in somebody's home.
        output: Folder that it would write.
    """

    weights: Path
    shown: str
    output: Path


Findings = Iterator[Finding]

_NEEDED = ("numpy", "pillow", "pydicom", "pydantic", "pandas", "click", "rich")
_PRESENT = ("python-gdcm", "torch")
_RUNTIMES = (
    *("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino"),
    *("onnxruntime-rocm", "onnxruntime-qnn", "onnxruntime-training"),
)
_EXTRAS = {
    "train": ("torch", "timm", "lightning", "onnx", "sklearn"),
    "dicom": ("highdicom",),
    "parquet": ("pyarrow",),
    "notebooks": ("jupyterlab", "ipywidgets"),
    "sign": ("cryptography",),
}
_REINSTALL = f"pip install --force-reinstall {DISTRIBUTION}"
_LITTLE_DISK, _NO_DISK = 1 << 30, 10 << 20
_BASE_BYTES, _LANE_BYTES = 400 << 20, 100 << 20
"""Of memory: what a run takes by itself, and more for each lane (see ``RunConfig``)."""


def examine(plan: Plan) -> list[Finding]:
    """All findings, in a stable order. Nobody's home folder is named in them."""
    checks: dict[str, Callable[[Plan], Findings]] = {
        "versions": _versions, "onnxruntime": _runtimes, "device": _devices, "weights": _weights,
        "output": _output, "memory": _memory, "cores": _cores, "DICOM": _decoders,
        "extras": _extras,
    }  # fmt: skip
    found = [finding for topic, check in checks.items() for finding in _guarded(topic, check, plan)]
    return [_without_home(finding, plan) for finding in found]


def _guarded(topic: str, check: Callable[[Plan], Findings], plan: Plan) -> list[Finding]:
    try:
        return list(check(plan))
    except ImportError as error:
        told = f"cannot be loaded: {error}"
        return [Finding(topic, Verdict.FAULT, told, f"install again: {_REINSTALL}")]
    except OSError as error:
        return [Finding(topic, Verdict.WARNING, f"cannot be told here: {error}")]


def _without_home(finding: Finding, plan: Plan) -> Finding:
    """The same without places that tell who works here."""
    texts = []
    for text in (finding.found, finding.advice):
        plain = " ".join(text.split()).replace(str(plan.weights), plan.shown)
        home = str(Path.home())
        texts.append(plain.replace(home, "~") if len(home) > 1 else plain)
    return Finding(finding.topic, finding.verdict, *texts)


def _versions(_: Plan) -> Findings:
    own = version_of(DISTRIBUTION) or "(not installed)"
    yield Finding(
        "versions", Verdict.OK,
        f"{DISTRIBUTION} {own}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}",
    )  # fmt: skip
    there = versions_of((*_NEEDED, *_PRESENT))
    told = ", ".join(f"{package} {version}" for package, version in there.items())
    missing = [package for package in _NEEDED if package not in there]
    if missing:
        advice = f"pip install {' '.join(missing)}"
        told = f"{', '.join(missing)} missing; {told}"
        yield Finding("packages", Verdict.FAULT, told, advice)
    else:
        yield Finding("packages", Verdict.OK, told)


def _runtimes(_: Plan) -> Findings:
    there = versions_of(_RUNTIMES)
    told = ", ".join(f"{name} {version}" for name, version in there.items())
    if len(there) > 1:
        keep = "onnxruntime-gpu" if "onnxruntime-gpu" in there else next(iter(there))
        yield Finding(
            "onnxruntime",
            Verdict.WARNING,
            f"{told}: they write over each other's files, and a GPU is lost without a word",
            f"pip uninstall -y {' '.join(there)} && pip install {keep}",
        )
        return
    import onnxruntime

    said = told or f"{onnxruntime.__version__}, of no known package"
    yield Finding("onnxruntime", Verdict.OK, said)


def _devices(_: Plan) -> Findings:
    from .runtime.providers import gpu_seems_present, resolve_device

    for device in ("cpu", "cuda", "tensorrt"):
        try:
            resolve_device(device)
        except (FxpipeError, RuntimeError) as error:
            if device == "cpu":
                yield Finding(device, Verdict.FAULT, str(error), f"install again: {_REINSTALL}")
                continue
            # A machine without a card lacks nothing; TensorRT is for those who ask for it.
            lost = device == "cuda" and gpu_seems_present()
            advice = error.hint if lost and isinstance(error, DeviceError) else ""
            yield Finding(
                device, Verdict.WARNING if lost else Verdict.OK, f"not usable: {error}", advice
            )
        else:
            yield Finding(device, Verdict.OK, "a network was opened on it and run")


class _Heard(logging.Handler):
    """Keeps warnings for the table instead of printing them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def _weights(plan: Plan) -> Findings:
    from .config import RunConfig
    from .runtime.session import load_bundles
    from .weights.intact import unlisted
    from .weights.manifest import read_manifest

    logger, heard = logging.getLogger("pipeline.runtime"), _Heard()
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(heard)
    try:
        opened = load_bundles(plan.weights, RunConfig())
    except FxpipeError as error:
        yield Finding("weights", Verdict.FAULT, str(error), error.hint)
        return
    finally:
        logger.removeHandler(heard)
        logger.propagate = propagated
    manifest = read_manifest(plan.weights)
    yield Finding(
        "weights",
        Verdict.OK,
        f"{plan.shown}: {len(manifest.files)} files as listed, opened as {opened.precision} on "
        f"{opened.device}",
    )
    for text in heard.texts:
        yield Finding("weights", Verdict.WARNING, text)
    if strange := unlisted(plan.weights, manifest):
        yield Finding(
            "weights",
            Verdict.WARNING,
            f"{len(strange)} file(s) not in the manifest, never opened: {', '.join(strange[:5])}",
            "take them out, or list documents with `fxpipe cards`",
        )


def _output(plan: Plan) -> Findings:
    place = plan.output
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        yield Finding(
            "output",
            Verdict.FAULT,
            f"{plan.output}: cannot be written",
            "name another folder with --output, or get the right to write there",
        )
        return
    free = shutil.disk_usage(place).free
    told = f"{plan.output}: {free / 1e9:.1f} GB free"
    if free >= _LITTLE_DISK:
        yield Finding("output", Verdict.OK, told)
        return
    yield Finding(
        "output",
        Verdict.FAULT if free < _NO_DISK else Verdict.WARNING,
        f"{told}; a row takes about 2 kB, a heatmap up to some MB",
        "make room, or name a folder on another disk with --output",
    )


def _memory(_: Plan) -> Findings:
    from .config import RunConfig

    needed = _BASE_BYTES + _LANE_BYTES * RunConfig().lanes
    free = free_memory()
    told = f"{free / 1e9:.1f} GB free, about {needed / 1e9:.1f} GB needed"
    if free >= needed:
        yield Finding("memory", Verdict.OK, told)
        return
    advice = "end other programs, or run with --batch-size 1 --set intra_op_threads=2"
    yield Finding("memory", Verdict.WARNING, told, advice)


def free_memory() -> int:
    """Bytes that a new process could get, also below the limit of a container."""
    import psutil

    free = [int(psutil.virtual_memory().available)]
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        if limit.isdecimal():
            used = Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii")
            free.append(max(0, int(limit) - int(used)))
    except (OSError, ValueError):
        pass  # not Linux, or another kind of container
    return min(free)


def _cores(_: Plan) -> Findings:
    from .config import RunConfig, cores

    yield Finding("cores", Verdict.OK, f"{cores()}, of which {RunConfig().lanes} take batches")


def _decoders(_: Plan) -> Findings:
    from .io.frames import COMPRESSIONS, why_unreadable

    reasons = {syntax.name: why_unreadable(syntax) for syntax in COMPRESSIONS}
    works = ["uncompressed", *(name for name, reason in reasons.items() if not reason)]
    yield Finding("DICOM", Verdict.OK, f"decoded here: {'; '.join(works)}")
    for reason in dict.fromkeys(filter(None, reasons.values())):
        names = [name for name, why in reasons.items() if why == reason]
        yield Finding(
            "DICOM",
            Verdict.WARNING,
            f"not decoded here, such pictures will fail: {'; '.join(names)} ({reason})",
            "pip install --force-reinstall python-gdcm pillow pydicom",
        )


def _extras(_: Plan) -> Findings:
    """Found on the path, never imported."""
    for extra, modules in _EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        told = f"not installed ({', '.join(missing)})" if missing else "installed"
        advice = f'only if wanted: pip install "{DISTRIBUTION}[{extra}]"' if missing else ""
        yield Finding(f"extra {extra}", Verdict.OK, told, advice)
