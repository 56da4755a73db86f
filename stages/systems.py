"""Whole systems as settings: a router or none, specialists, and one way to train, export and run.

``configs/systems/`` holds those of the field beside this project's own design.
"""

from __future__ import annotations

import json
import logging
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from pipeline.bundle import MANIFEST_NAME
from pipeline.config import Settings, load
from pipeline.domain import ANY_REGION, REGIONS
from pipeline.errors import ConfigError, UsageError
from pipeline.progress import Progress

from .checkpoint import CONFIG
from .config import FractureConfig, RegionConfig, StageConfig, Whose
from .data.index import Index
from .finished import load_runs
from .recipe import INHERITED, RESULT, changes, train_fracture, train_region
from .ship import ExportConfig, export_runs

log = logging.getLogger(__name__)


class SystemConfig(Settings):
    """One system.

    Attributes:
        title: For the table.
        regions: Of its specialists; ``all`` alone for a system without a router.
        region: The router; None for a system without one.
        fracture: Every specialist, but for its region. Unless it is independent it goes on from
            the router of the same system.
        export: How its networks become bundles.
    """

    title: str = ""
    regions: tuple[Whose, ...] = Field(REGIONS, min_length=1)
    region: RegionConfig | None = RegionConfig()
    fracture: FractureConfig = FractureConfig()
    export: ExportConfig = ExportConfig()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """A system that is described is one that can run."""
        if self.region is None and self.regions != (ANY_REGION,):
            raise ValueError("a system without [region] has regions = ['all']")
        if self.region is None and not self.fracture.independent:
            raise ValueError("without [region], fracture.region_run is 'none'")
        return self


def read_system(file: Path, overrides: Sequence[str] = ()) -> SystemConfig:
    """A system from its file; overrides of a part that it does not have are left aside.

    Raises:
        ConfigError: With every fault.
    """
    try:
        written = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: no readable TOML: {error}") from error
    if not written.get("title"):
        raise ConfigError(f"{file}: no title, wanted a system such as those in configs/systems/")
    if "region" in written:
        return load(SystemConfig, file, overrides)
    overrides = [word for word in overrides if not word.startswith("region.")]
    return SystemConfig.model_validate(load(_Unrouted, file, overrides).model_dump())


class _Unrouted(SystemConfig):
    """What a file that has no router leaves unsaid."""

    regions: tuple[Whose, ...] = ("all",)
    region: RegionConfig | None = None
    fracture: FractureConfig = FractureConfig(region_run=Path("none"))


def make_system(folder: Path, system: SystemConfig, index: Index, progress: Progress) -> Path:
    """Train and export a system; what is finished is kept, what is not goes on.

    Args:
        folder: Gets ``runs`` and ``weights``.
        system: Settings.
        index: Table.
        progress: Advanced once a batch.

    Returns:
        Its weights folder.

    Raises:
        UsageError: The folder holds another system, or one of another table.
        ConfigError: The settings or the table do not fit.
        ExportRefusedError: A bundle decides otherwise than the network.
    """
    runs: list[Path] = []
    router = folder / "runs" / "region"
    if system.region is not None:
        _train(router, train_region, system.region, index, progress)
        runs.append(router)
    for region in system.regions:
        update: dict[str, Any] = {"region": region}
        if not system.fracture.independent:
            update["region_run"] = router
        config = system.fracture.model_copy(update=update)
        run = folder / "runs" / f"fracture-{region}"
        _train(run, train_fracture, config, index, progress)
        runs.append(run)
    weights = folder / "weights"
    if not (weights / MANIFEST_NAME).is_file():
        for row in export_runs(load_runs(runs), index, weights, system.export, progress):
            log.info("%s", row)
    return weights


def _train(
    run: Path, train: Callable[..., None], config: StageConfig, index: Index, progress: Progress
) -> None:
    if (run / RESULT).is_file():
        described = json.loads((run / CONFIG).read_text(encoding="utf-8"))
        same = {"index_digest": index.digest, "config": config.model_dump(mode="json")}
        inherited = INHERITED if _goes_on(config) else ()
        other = [
            words
            for words in changes({key: described[key] for key in same}, same)
            if not words.startswith(inherited)
        ]
        if other:
            told = "\n  ".join(other)
            raise UsageError(
                f"{run}: is finished, but with other settings; what differs:\n  {told}",
                "name another --output",
            )
        log.info("%s: finished before", run)
        return
    log.info("%s", run)
    train(run, index, config, (run / CONFIG).is_file(), progress)


def _goes_on(config: StageConfig) -> bool:
    """Whether it is a specialist that goes on from another network."""
    return isinstance(config, FractureConfig) and not config.independent
