"""Complete systems as settings: an optional router, and specialists; training and export.

``configs/systems/`` contains systems from the literature and this project's own design.
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

from ..export.export_runs import ExportConfig, export_runs
from ..network.checkpoint import CONFIG
from ..samples import Index
from ..settings import FractureConfig, RegionConfig, StageConfig, Whose
from ..training.finished_run import load_runs
from ..training.run import INHERITED, RESULT, changes, train_fracture, train_region

log = logging.getLogger(__name__)


class SystemConfig(Settings):
    """One system.

    Attributes:
        title: Title in the comparison.
        regions: Regions of its specialists; only ``all`` for a system without a router.
        region: The router; None for a system without one.
        fracture: Settings of every specialist, except for its region. A specialist that is not
            independent starts from the router of the same system.
        export: Settings of the export.
    """

    title: str = ""
    regions: tuple[Whose, ...] = Field(REGIONS, min_length=1)
    region: RegionConfig | None = RegionConfig()
    fracture: FractureConfig = FractureConfig()
    export: ExportConfig = ExportConfig()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """Check that the system can run."""
        if self.region is None and self.regions != (ANY_REGION,):
            raise ValueError("a system without [region] has regions = ['all']")
        if self.region is None and not self.fracture.independent:
            raise ValueError("without [region], fracture.region_run is 'none'")
        return self


def read_system(file: Path, overrides: Sequence[str] = ()) -> SystemConfig:
    """Read a system from its file; overrides of a missing part are ignored.

    Raises:
        ConfigError: Lists every fault.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot read the TOML file: {error}") from error
    if not content.get("title"):
        raise ConfigError(f"{file}: no title: not a system such as those in configs/systems/")
    if "region" in content:
        return load(SystemConfig, file, overrides)
    overrides = [override for override in overrides if not override.startswith("region.")]
    return SystemConfig.model_validate(load(_Unrouted, file, overrides).model_dump())


class _Unrouted(SystemConfig):
    """Defaults of a system without a router."""

    regions: tuple[Whose, ...] = ("all",)
    region: RegionConfig | None = None
    fracture: FractureConfig = FractureConfig(region_run=Path("none"))


def make_system(folder: Path, system: SystemConfig, index: Index, progress: Progress) -> Path:
    """Train and export a system; finished runs are kept, interrupted runs resume.

    Args:
        folder: Gets ``runs`` and ``weights``.
        system: Settings.
        index: Table.
        progress: Advanced once per batch.

    Returns:
        Its weights folder.

    Raises:
        UsageError: The folder contains another system, or one of another table.
        ConfigError: The settings or the table are invalid.
        ExportRefusedError: A bundle decides differently from the network.
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
        expected = {"index_digest": index.digest, "config": config.model_dump(mode="json")}
        inherited = INHERITED if _is_dependent(config) else ()
        differences = [
            change
            for change in changes({key: described[key] for key in expected}, expected)
            if not change.startswith(inherited)
        ]
        if differences:
            listed = "\n  ".join(differences)
            raise UsageError(
                f"{run}: is finished with other settings; differences:\n  {listed}",
                "choose another --output",
            )
        log.info("%s: finished before", run)
        return
    log.info("%s", run)
    train(run, index, config, (run / CONFIG).is_file(), progress)


def _is_dependent(config: StageConfig) -> bool:
    """Whether the stage is a specialist that starts from another network."""
    return isinstance(config, FractureConfig) and not config.independent
