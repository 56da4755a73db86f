"""Checks of the installation and the machine, with advice.

The checks must not fail because something is missing: each imports what it needs, and a failed
import is reported as a finding.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from . import DISTRIBUTION, version_of, versions_of
from .errors import DeviceError, FxpipeError


class Verdict(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"
    """`fxpipe run` cannot start."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table.

    Attributes:
        topic: Subject of the check.
        verdict: See :class:`Verdict`.
        found: Result of the check, as text.
        advice: What to do; empty if nothing needs to be done.
    """

    topic: str
    verdict: Verdict
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """The planned service.

    Attributes:
        data: Data folder.
        host: Address to listen on.
        port: TCP port.
        database: URL; None for SQLite in the data folder.
        certificate: PEM file of the TLS certificate; None for plain HTTP.
        key: PEM file of its private key; None if it is in the same file.
        title: Own AE title.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 8080
    database: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    title: str = "FXPIPE"


@dataclass(frozen=True, slots=True)
class Plan:
    """The planned run.

    Attributes:
        weights: Weights folder.
        shown: The weights folder as the user gave it, without the path of a home folder.
        output: Output folder.
        service: The planned service; None to check the run only.
    """

    weights: Path
    shown: str
    output: Path
    service: ServicePlan | None = None


Findings = Iterator[Finding]

_NEEDED = ("numpy", "pillow", "pydicom", "pydantic", "click", "rich")
_PRESENT = ("python-gdcm", "torch")
_RUNTIMES = (
    *("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino"),
    *("onnxruntime-rocm", "onnxruntime-qnn", "onnxruntime-training"),
)
EXTRAS = {
    "evaluate": ("matplotlib", "onnx", "pandas", "sklearn", "scipy"),
    "train": ("torch", "timm", "lightning", "onnxscript", "safetensors"),
    "dicom": ("highdicom",),
    "parquet": ("pyarrow",),
    "cluster": ("ray",),
    "remote": ("fsspec", "s3fs"),
    "notebooks": ("jupyterlab", "ipywidgets"),
    "serve": (
        *("alembic", "argon2", "fastapi", "highdicom", "prometheus_client", "pynetdicom"),
        *("python_multipart", "sqlalchemy", "uvicorn"),
    ),
    "postgresql": ("psycopg",),
    "sign": ("cryptography",),
}
"""Modules of each optional extra of the package, by extra."""

_REINSTALL = f"pip install --force-reinstall {DISTRIBUTION}"
_LITTLE_DISK, _NO_DISK = 1 << 30, 10 << 20
_BASE_BYTES, _LANE_BYTES = 400 << 20, 100 << 20
"""Memory of a run, and additional memory for each lane (see ``RunConfig``)."""


def _guarded(topic: str, check: Callable[[Plan], Findings], plan: Plan) -> list[Finding]:
    try:
        return list(check(plan))
    except ImportError as error:
        message = f"cannot be loaded: {error}"
        return [Finding(topic, Verdict.FAULT, message, f"install again: {_REINSTALL}")]
    except OSError as error:
        return [Finding(topic, Verdict.WARNING, f"cannot be checked here: {error}")]


def _without_home(finding: Finding, plan: Plan) -> Finding:
    """The same finding without the path of the home folder, which contains a user name."""
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
    installed = versions_of((*_NEEDED, *_PRESENT))
    summary = ", ".join(f"{package} {version}" for package, version in installed.items())
    missing = [package for package in _NEEDED if package not in installed]
    if missing:
        advice = f"pip install {' '.join(missing)}"
        summary = f"{', '.join(missing)} missing; {summary}"
        yield Finding("packages", Verdict.FAULT, summary, advice)
    else:
        yield Finding("packages", Verdict.OK, summary)


def _runtimes(_: Plan) -> Findings:
    installed = versions_of(_RUNTIMES)
    summary = ", ".join(f"{name} {version}" for name, version in installed.items())
    if len(installed) > 1:
        keep = "onnxruntime-gpu" if "onnxruntime-gpu" in installed else next(iter(installed))
        yield Finding(
            "onnxruntime",
            Verdict.WARNING,
            f"{summary}: they overwrite each other's files, and GPU support is lost silently",
            f"pip uninstall -y {' '.join(installed)} && pip install {keep}",
        )
        return
    import onnxruntime

    description = summary or f"{onnxruntime.__version__}, of an unknown package"
    yield Finding("onnxruntime", Verdict.OK, description)


def _devices(_: Plan) -> Findings:
    from .runtime.providers import gpu_seems_present, resolve_device

    for device in ("cpu", "cuda", "tensorrt"):
        try:
            resolve_device(device)
        except (FxpipeError, RuntimeError) as error:
            if device == "cpu":
                yield Finding(device, Verdict.FAULT, str(error), f"install again: {_REINSTALL}")
                continue
            # No GPU is not a fault, and TensorRT is optional.
            gpu_unused = device == "cuda" and gpu_seems_present()
            advice = error.hint if gpu_unused and isinstance(error, DeviceError) else ""
            yield Finding(
                device,
                Verdict.WARNING if gpu_unused else Verdict.OK,
                f"not available: {error}",
                advice,
            )
        else:
            yield Finding(device, Verdict.OK, "a test network ran on it")


class _Collector(logging.Handler):
    """Collects warnings for the table instead of printing them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def _weights(plan: Plan) -> Findings:
    from .config import RunConfig
    from .runtime.session import load_bundles
    from .weights.manifest import read_manifest
    from .weights.verify import unlisted

    logger, collector = logging.getLogger("pipeline.runtime"), _Collector()
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(collector)
    try:
        opened = load_bundles(plan.weights, RunConfig())
    except FxpipeError as error:
        yield Finding("weights", Verdict.FAULT, str(error), error.hint)
        return
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagated
    manifest = read_manifest(plan.weights)
    yield Finding(
        "weights",
        Verdict.OK,
        f"{plan.shown}: {len(manifest.files)} files match the manifest, opened as "
        f"{opened.precision} on {opened.device}",
    )
    for text in collector.texts:
        yield Finding("weights", Verdict.WARNING, text)
    if extra := unlisted(plan.weights, manifest):
        yield Finding(
            "weights",
            Verdict.WARNING,
            f"{len(extra)} file(s) not in the manifest, never opened: {', '.join(extra[:5])}",
            "remove them, or list documents with `fxpipe cards`",
        )


def _output(plan: Plan) -> Findings:
    place = plan.output
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        yield Finding(
            "output",
            Verdict.FAULT,
            f"{plan.output}: not writable",
            "choose another folder with --output, or get write permission",
        )
        return
    free = shutil.disk_usage(place).free
    summary = f"{plan.output}: {free / 1e9:.1f} GB free"
    if free >= _LITTLE_DISK:
        yield Finding("output", Verdict.OK, summary)
        return
    yield Finding(
        "output",
        Verdict.FAULT if free < _NO_DISK else Verdict.WARNING,
        f"{summary}; a row takes about 2 kB, a heatmap up to some MB",
        "free disk space, or choose a folder on another disk with --output",
    )


def _memory(_: Plan) -> Findings:
    from .config import RunConfig

    needed = _BASE_BYTES + _LANE_BYTES * RunConfig().lanes
    free = free_memory()
    summary = f"{free / 1e9:.1f} GB free, about {needed / 1e9:.1f} GB needed"
    if free >= needed:
        yield Finding("memory", Verdict.OK, summary)
        return
    advice = "close other programs, or run with --batch-size 1 --set intra_op_threads=2"
    yield Finding("memory", Verdict.WARNING, summary, advice)


def free_memory() -> int:
    """Free memory for a new process in bytes, within the limit of a container."""
    import psutil

    free = [int(psutil.virtual_memory().available)]
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        if limit.isdecimal():
            used = Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii")
            free.append(max(0, int(limit) - int(used)))
    except (OSError, ValueError):
        pass  # not Linux, or another type of container
    return min(free)


def _cores(_: Plan) -> Findings:
    from .config import RunConfig, cores

    yield Finding("cores", Verdict.OK, f"{cores()}, {RunConfig().lanes} of them run batches")


def _decoders(_: Plan) -> Findings:
    from .io.frames import COMPRESSIONS, why_unreadable

    reasons = {syntax.name: why_unreadable(syntax) for syntax in COMPRESSIONS}
    decodable = ["uncompressed", *(name for name, reason in reasons.items() if not reason)]
    yield Finding("DICOM", Verdict.OK, f"decodes {'; '.join(decodable)}")
    for reason in dict.fromkeys(filter(None, reasons.values())):
        names = [name for name, why in reasons.items() if why == reason]
        yield Finding(
            "DICOM",
            Verdict.WARNING,
            f"cannot decode {'; '.join(names)}: {reason}; such pictures will fail",
            "pip install --force-reinstall python-gdcm pillow pydicom",
        )


def _extras(_: Plan) -> Findings:
    """Check that the modules of the extras exist, without importing them."""
    for extra, modules in EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        summary = f"not installed ({', '.join(missing)})" if missing else "installed"
        advice = f'optional: pip install "{DISTRIBUTION}[{extra}]"' if missing else ""
        yield Finding(f"extra {extra}", Verdict.OK, summary, advice)


def _service(plan: Plan) -> Findings:
    if plan.service is None:
        return
    missing = [name for name in EXTRAS["serve"] if importlib.util.find_spec(name) is None]
    if missing:
        advice = f'pip install "{DISTRIBUTION}[serve]"'
        yield Finding("service", Verdict.FAULT, f"{', '.join(missing)} missing", advice)
        return
    from .service.checks import examine as examine_service

    yield from examine_service(plan.service)


CHECKS: Mapping[str, Callable[[Plan], Findings]] = {
    "versions": _versions, "onnxruntime": _runtimes, "device": _devices, "weights": _weights,
    "output": _output, "memory": _memory, "cores": _cores, "DICOM": _decoders,
    "extras": _extras, "service": _service,
}  # fmt: skip
"""The checks of `fxpipe doctor` in their order, by the topic of a check that fails."""


def examine(plan: Plan, checks: Mapping[str, Callable[[Plan], Findings]] = CHECKS) -> list[Finding]:
    """Run checks in the given order. The findings do not contain the path of the home folder.

    Args:
        plan: The planned run.
        checks: A check that raises ImportError or OSError gives one finding on its topic.
    """
    return [
        _without_home(finding, plan)
        for topic, check in checks.items()
        for finding in _guarded(topic, check, plan)
    ]
