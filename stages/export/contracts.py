"""Contracts of the bundles exported from a finished run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline import version
from pipeline.bundle import FractureSpec, Kind, Precision, Provenance, RegionSpec, TrunkSpec

from ..samples import Index, Sample
from ..training.finished_run import Run


def trunk_contract(
    run: Run, index: Index, name: str, precision: Precision, identity: str
) -> TrunkSpec:
    """The contract of a run's trunk.

    Args:
        run: Finished.
        index: Its table.
        name: Of the bundle.
        precision: Of the bundle.
        identity: Of the trunk's weights.
    """
    if isinstance(known := run.contracts.get(name), TrunkSpec):
        return known.changed(precision=precision)
    return TrunkSpec(
        name=name,
        precision=precision,
        trunk=identity,
        preprocess=run.preprocess,
        provenance=_provenance(run, index),
    )


def stage_contract(
    run: Run, index: Index, precision: Precision, identity: str | None
) -> RegionSpec | FractureSpec:
    """The contract of what a run trained.

    Args:
        run: Finished.
        index: Its table.
        precision: Of the bundle.
        identity: Of the trunk's weights; None for a complete network.
    """
    known = run.contracts.get(run.stage.name)
    if isinstance(known, RegionSpec | FractureSpec):
        return known.changed(precision=precision)
    result = run.result
    shared: dict[str, Any] = {
        "name": run.stage.name,
        "precision": precision,
        "input": "image" if identity is None else "features",
        "trunk": identity,
        "preprocess": run.preprocess,
        "provenance": _provenance(run, index),
        "labels": run.stage.labels,
        "heatmap": run.network.heatmap,
        "temperature": result["temperature"],
        "bias": result["bias"],
    }
    if run.stage.kind is Kind.REGION:
        return RegionSpec(
            **shared,
            route_thresholds=result["route_thresholds"],
            density=run.density and run.density.contract,
        )
    return FractureSpec(
        **shared,
        region=run.stage.region,
        target=run.described["target"],
        operating_points=result["operating_points"],
        default_point=result["default_point"],
        # None in a run from before there were any, as for the next two.
        study_points=result.get("study_points", {}),
        closer=result.get("closer"),
        types=result.get("types"),
    )


def _provenance(run: Run, index: Index) -> Provenance:
    seen = {
        split: [s for s in index.of(split) if run.stage.selects(s)]
        for split in ("train", "val", "test")
    }
    origins = Counter(sample.origin.split("/")[0] for sample in seen["train"])
    return Provenance(
        fxpipe_version=version(),
        run=run.folder.name,
        created=run.described["created"],
        index_digest=run.described["index_digest"],
        data=", ".join(f"{origin}: {count} training pictures" for origin, count in origins.items()),
        initial_weights=run.described["initial_weights"],
        versions=run.described["versions"],
        counts={split: _counted(samples) for split, samples in seen.items()},
        recipe=_recipe(run.described["config"]),
        best_epoch=run.result["best_epoch"],
        architecture=run.network.arch,
        # None in a run from before there were any.
        warnings=tuple(run.result.get("warnings", ())),
    )


def _recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without the places of one machine, which change no weight."""
    recipe = {key: value for key, value in config.items() if key not in ("data", "region_run")}
    if "model" in recipe:
        recipe["model"] = {k: v for k, v in recipe["model"].items() if k != "init"}
    return recipe


def _counted(samples: Sequence[Sample]) -> str:
    """``443 pictures, 132 positive, in 210 groups``."""
    positives = sum(sample.label == 1 for sample in samples)
    groups = len({sample.group for sample in samples})
    return f"{len(samples)} pictures, {positives} positive, in {groups} groups"
