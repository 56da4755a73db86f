"""Settings: pydantic models, TOML files and ``--set key=value``; reports all errors together."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from .bundle import Precision
from .errors import ConfigError
from .outcome import HeaderUse


class Settings(BaseModel):
    """Base of every settings model: immutable, rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_MOST_LANES = 8
"""Each lane holds the activations of a batch, about 100 MB at 8 pictures of 384 px."""

Device = Literal["auto", "cpu", "cuda", "tensorrt"]
Heatmaps = Literal["none", "positive", "all"]
S = TypeVar("S", bound=Settings)


STUDIES = ("auto", "dicom", "mura", "folder", "none")
"""Ways to group pictures into studies, in addition to a CSV file."""


def _study_source(text: str) -> str:
    if text not in STUDIES and not text.lower().endswith(".csv"):
        raise ValueError(f"expected {', '.join(STUDIES)}, or a table, FILE.csv")
    return text if text in STUDIES else str(_expanded(Path(text)))


def _expanded(path: Path) -> Path:
    """The path with ``~`` replaced by the user's home directory."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError("found no home folder for this path") from error


class RunConfig(Settings):
    """Settings of ``fxpipe run``.

    Attributes:
        device: ``auto`` selects the fastest working device; any other device must work.
        precision: ``auto`` is int8 on the CPU and fp16 on a GPU.
        batch_size: Maximum batch of the trunk in each lane. On a CPU, values above 2 use more
            memory without gain; on a GPU, use 32 or more.
        workers: Files to read ahead concurrently; 0 for one per core.
        cores: Processor cores to use; 0 for all that this process may use.
        megapixels: Millions of pixels to decode and resize concurrently, about 10 MB each; a
            larger picture is processed alone. Use more for a GPU with many CPU cores.
        isolate: Whether to read files in separate processes, so that a decoder that crashes,
            hangs or needs too much memory affects only one row. False reads in the main process.
        timeout_per_file_s: Seconds that an isolated reader may spend on one file.
        intra_op_threads: Threads inside a network on the CPU; 0 to use the cores left by the
            lanes.
        header: Whether routing uses the DICOM header; see :func:`pipeline.decision.combine`.
        header_margin: Log odds by which a region that the header names may miss its threshold.
        operating_point: Name of a stored operating point; None for each bundle's default.
        looks: Number of looks of a specialist at a picture: 1 for the whole limb only, None for
            the number stored in the bundle.
        gate: Whether a picture that is far from all training pictures is unsupported, regardless
            of the routing. Use ``off`` for networks without a density gate, and to measure the
            effect of the gate.
        far: Whether a judged picture that is far from the training pictures is *positive* only
            from the highest stored threshold, and *uncertain* below it (``doubt``).
        heatmaps: Pictures that get a heatmap: those with a positive or uncertain verdict, all
            judged pictures, or none. None: positive with a report or DICOM objects, else none.
        report: Whether to write the page ``report.html``.
        fhir: Whether to write ``results.fhir.json``.
        parquet: Whether to write ``results.parquet``.
        dicom_out: Folder for DICOM objects; None to write none.
        opacity: Maximum opacity of a heatmap's colours, in [0, 1].
        csv_bom: Whether CSV tables begin with a byte-order mark, which Excel needs for names with
            non-ASCII characters.
        contour: Share of a heatmap's maximum at which its contour is drawn, in (0, 1).
        identifiers: Whether outputs contain patient, accession and DICOM UIDs.
        studies: How pictures are grouped into studies: by DICOM study, else by MURA study folder
            (``auto``), by only one of these (``dicom``, ``mura``), by folder (``folder``), not at
            all (``none``), or by a CSV file with columns path and study.
    """

    device: Device = "auto"
    precision: Literal["auto"] | Precision = "auto"
    batch_size: int = Field(default=2, ge=1, le=1024)
    workers: int = Field(default=0, ge=0, le=256)
    cores: int = Field(default=0, ge=0, le=1024)
    megapixels: int = Field(default=24, ge=1, le=100_000)
    isolate: bool = True
    timeout_per_file_s: float = Field(default=60.0, gt=0.0, le=86_400.0)
    intra_op_threads: int = Field(default=0, ge=0, le=1024)
    header: HeaderUse = "combine"
    header_margin: float = Field(default=1.0, ge=0.0, le=3.0)
    operating_point: str | None = None
    looks: int | None = Field(default=None, ge=1, le=17)
    gate: Literal["on", "off"] = "on"
    far: Literal["doubt", "ignore"] = "doubt"
    heatmaps: Heatmaps | None = None
    report: bool = False
    fhir: bool = False
    parquet: bool = False
    dicom_out: Annotated[Path, AfterValidator(_expanded)] | None = None
    opacity: float = Field(default=0.6, ge=0.0, le=1.0)
    csv_bom: bool = False
    contour: float = Field(default=0.5, gt=0.0, lt=1.0)
    identifiers: Literal["omit", "keep"] = "omit"
    studies: Annotated[str, AfterValidator(_study_source)] = "auto"

    @property
    def shown_heatmaps(self) -> Heatmaps:
        """``heatmaps``, with None resolved."""
        return self.heatmaps or ("positive" if self.report or self.dicom_out else "none")

    @property
    def reader_threads(self) -> int:
        """Worker threads, with 0 resolved."""
        return self.workers or self._cores

    @property
    def lanes(self) -> int:
        """Threads that each run whole batches through the networks.

        One batch per core avoids synchronization between cores at the end of each layer.
        """
        if self.intra_op_threads:
            return max(1, self._cores // self.intra_op_threads)
        return min(self._cores, _MOST_LANES)

    @property
    def threads(self) -> int:
        """Threads inside a network, with 0 resolved; 1 unless there are more cores than lanes.

        All lanes share the threads beyond the first, so that there is one thread per core.
        """
        return self.intra_op_threads or self._cores - self.lanes + 1

    @property
    def _cores(self) -> int:
        return self.cores or cores()


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on Windows and macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load(
    model: type[S],
    file: Path | None = None,
    overrides: Sequence[str] = (),
    options: Mapping[str, object] | None = None,
) -> S:
    """Build settings from defaults, a TOML file, overrides and command-line options, in this order.

    Args:
        model: The settings model.
        file: A TOML file.
        overrides: ``key.sub=value`` strings, as a user writes them after ``--set``.
        options: Values by dotted key; strings are not parsed as TOML.

    Raises:
        ConfigError: One line for each error.
    """
    source = str(file) if file else "settings"
    # Start from the defaults of the whole model: a partial section must keep this model's
    # defaults for its other keys, not those of the section's own class.
    values: dict[str, Any] = model().model_dump()
    if file is not None:
        try:
            _merge(values, tomllib.loads(file.read_text(encoding="utf-8")))
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: not TOML: {error}") from error
    for override in overrides:
        _set(values, *_parse(override), f"--set {override!r}")
    for key, value in (options or {}).items():
        _set(values, key, value, key)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        known = list(_keys(model))
        raise ConfigError(
            "\n".join(f"{source}: {_explain(fault, known)}" for fault in error.errors())
        ) from error


def _merge(values: dict[str, Any], changes: dict[str, Any]) -> None:
    """Merge changes into values recursively."""
    for key, change in changes.items():
        if isinstance(change, dict) and isinstance(values.get(key), dict):
            _merge(values[key], change)
        else:
            values[key] = change


def _parse(override: str) -> tuple[str, Any]:
    """Key and value of ``key.sub=value``; the value is TOML, or a plain string if it is not."""
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {override!r}: expected key=value")
    try:
        return key.strip(), tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), text


def _set(values: dict[str, Any], key: str, value: object, source: str) -> None:
    """Set one dotted key."""
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{source}: {parent} is a value, not a section")
    values[last] = value


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a settings model."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _keys(part, f"{prefix}{name}.")


def _explain(fault: Any, known: Sequence[str]) -> str:
    """Describe one pydantic error with the key of the user's file."""
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        matches = difflib.get_close_matches(key, known, n=1)
        return f"{key} is not a setting" + (f"; did you mean {matches[0]}?" if matches else "")
    return f"{key}: {fault['msg']} (found {fault['input']!r})"
