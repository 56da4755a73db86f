"""Settings: pydantic models, TOML files, ``--set key=value``; every fault is reported at once."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from .bundle import Precision
from .domain import HeaderUse
from .errors import ConfigError


class Settings(BaseModel):
    """Base of every settings model: frozen, and nothing unknown is accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_MOST_LANES = 8
"""Each lane holds the activations of a batch, about 100 MB at 8 pictures of 384 px."""

Device = Literal["auto", "cpu", "cuda", "tensorrt"]
Heatmaps = Literal["none", "positive", "all"]
S = TypeVar("S", bound=Settings)


STUDIES = ("auto", "dicom", "mura", "folder", "none")
"""What may say which pictures are one study, beside a CSV file."""


def _study_source(text: str) -> str:
    if text not in STUDIES and not text.lower().endswith(".csv"):
        raise ValueError(f"wanted {', '.join(STUDIES)}, or a table, FILE.csv")
    return text if text in STUDIES else str(_expanded(Path(text)))


def _expanded(path: Path) -> Path:
    """The path with ``~`` replaced by the user's home, also where no shell has read it."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError("found no home folder for it") from error


class RunConfig(Settings):
    """What ``fxpipe run`` can be told beside its input.

    Attributes:
        device: ``auto`` takes the fastest that works; any other name is a promise.
        precision: ``auto`` is int8 on the CPU and fp16 on a GPU.
        batch_size: Pictures that the trunk sees at once, in each lane. On a CPU more than 2 cost
            memory and gain nothing; a GPU wants 32 or more.
        workers: Files that are read and resized ahead of it at the same time; 0 for one a core.
        megapixels: Millions of pixels that are decoded and resized at the same time, about 10 MB
            each; a larger picture goes alone. A GPU that many cores feed wants more.
        isolate: Whether files are read in processes of their own, so that a decoder that crashes,
            hangs or takes too much memory costs one row. False reads in the run's own.
        timeout_per_file_s: Seconds that an isolated reader may be busy with one file.
        intra_op_threads: Threads inside a network on the CPU; 0 for what the lanes leave.
        header: Whether a DICOM header has a say in which regions a picture shows; see
            :func:`pipeline.decision.combine`.
        header_margin: Log odds by which a region that the header names may miss its threshold.
        operating_point: Name of a stored point; None for each bundle's default.
        looks: How often a specialist looks at a picture: 1 for the whole limb only, None for as
            often as it was made for.
        gate: Whether a picture that is far from all training pictures is unsupported, whatever
            the router says. ``off`` is for networks that were exported before there was a density
            gate, and for measuring what it does.
        far: Whether a picture that is judged but far from the training pictures is *positive*
            only from the highest stored threshold, and *uncertain* below it (``doubt``).
        heatmaps: For which pictures to show where a finding is seen: those with a positive or
            uncertain verdict, all that got one, or none. None: positive with a report or DICOM
            objects, else none.
        report: Whether to write the page, ``report.html``.
        fhir: Whether to write ``results.fhir.json``.
        parquet: Whether to write ``results.parquet``.
        dicom_out: Folder for DICOM objects; None for no such objects.
        opacity: Of a heatmap's colours where they are strongest, in [0, 1].
        csv_bom: Whether CSV tables begin with a byte-order mark, as Excel wants it for names that
            are not English.
        contour: Share of a heatmap's peak at which a line is drawn around it, in (0, 1).
        identifiers: Whether outputs tell patient, accession and DICOM UIDs.
        studies: Which pictures are one study: those of one DICOM study, else of one study folder
            of MURA (``auto``), only the one or the other (``dicom``, ``mura``), those of one
            folder (``folder``), none, or what a CSV file with columns path and study says.
    """

    device: Device = "auto"
    precision: Literal["auto"] | Precision = "auto"
    batch_size: int = Field(default=2, ge=1, le=1024)
    workers: int = Field(default=0, ge=0, le=256)
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
        return self.workers or cores()

    @property
    def lanes(self) -> int:
        """Threads that each take whole batches through the networks.

        A core that has a batch of its own never waits for another one at the end of a layer.
        """
        if self.intra_op_threads:
            return max(1, cores() // self.intra_op_threads)
        return min(cores(), _MOST_LANES)

    @property
    def threads(self) -> int:
        """Threads inside a network, with 0 resolved: 1 until there are more cores than lanes.

        All lanes share those beyond the first, so that each core has one thread in all.
        """
        return self.intra_op_threads or cores() - self.lanes + 1


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on Windows and macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load(
    model: type[S],
    file: Path | None = None,
    overrides: Sequence[str] = (),
    given: Mapping[str, object] | None = None,
) -> S:
    """Build settings: defaults, then a TOML file, then overrides, then what options gave.

    Args:
        model: The settings.
        file: TOML.
        overrides: ``key.sub=value`` each, as a user writes them after ``--set``.
        given: Values by dotted key, taken as they are: a text is never read as TOML.

    Raises:
        ConfigError: With one line for every fault found.
    """
    source = str(file) if file else "settings"
    # From the whole model's defaults: a section that is given in part keeps the rest of what
    # this model says of it, not what the section's own class does.
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
    for key, value in (given or {}).items():
        _set(values, key, value, key)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        known = list(_keys(model))
        raise ConfigError(
            "\n".join(f"{source}: {_explain(fault, known)}" for fault in error.errors())
        ) from error


def _merge(values: dict[str, Any], changes: dict[str, Any]) -> None:
    """Lay changes over values, section by section."""
    for key, change in changes.items():
        if isinstance(change, dict) and isinstance(values.get(key), dict):
            _merge(values[key], change)
        else:
            values[key] = change


def _parse(override: str) -> tuple[str, Any]:
    """Key and value of ``key.sub=value``; the value is TOML, or a plain string when it is not."""
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {override!r}: wanted key=value")
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
    """One fault of pydantic's in the words of the user's file."""
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, known, n=1)
        return f"{key} is not a setting" + (f"; did you mean {near[0]}?" if near else "")
    return f"{key}: {fault['msg']} (found {fault['input']!r})"
