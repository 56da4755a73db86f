"""Loading of finished runs for export, with joint calibration of the specialists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.bundle import BundleSpec, CloserLooks, Kind
from pipeline.domain import ANY_REGION, Array
from pipeline.errors import ConfigError
from pipeline.preprocess import PreprocessSpec

from ..network.density import FittedDensity
from ..network.density import load as density_of
from ..network.model import Network
from ..stage_spec import StageSpec, fracture_stage, region_stage, types_of
from ..statistics.calibration import fit_calibration, operating_points, probabilities
from ..statistics.metrics import Labels
from ..statistics.study_thresholds import fit_study_points
from .assessment import CLOSEST, PREDICTIONS, SHIFTED, described, view_keys
from .closer_looks import Weighing, closer_contract, fit_weighing
from .run import RESULT, load_network


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run, loaded.

    Attributes:
        folder: Run folder.
        stage: Stage of the run.
        network: Network with the best weights.
        described, result: Content of ``config.json`` and ``result.json``.
        preprocess: Preprocessing of its pictures.
        density: Density gate of a region run.
        contracts: Contracts by name, for a run that was restored from bundles.
    """

    folder: Path
    stage: StageSpec
    network: Network
    described: Mapping[str, Any]
    result: Mapping[str, Any]
    preprocess: PreprocessSpec
    density: FittedDensity | None = None
    contracts: Mapping[str, BundleSpec] = field(default_factory=dict)


def load_runs(folders: Sequence[Path]) -> list[Run]:
    """Load runs; specialists trained on the same table share one calibration.

    Raises:
        ConfigError: A run is not finished, or a region run has no density gate.
    """
    return _calibrated_together([_load(folder) for folder in folders])


def _load(folder: Path) -> Run:
    network, described = load_network(folder)
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{folder}: no {RESULT}, the run is not finished",
            "continue it with `fxpipe train-stage … --resume`",
        ) from error
    region = described["region"]
    target = described["target"]
    # A region run on a table without labels learned only regions.
    known = target if len(described["outputs"]) > len(described["labels"]) else None
    types = types_of(described.get("types"))
    stage = fracture_stage(region, target, types) if region else region_stage(known)
    preprocess = PreprocessSpec.model_validate(described["preprocess"])
    density = None if region else density_of(folder, described["cut"])
    return Run(folder, stage, network, described, result, preprocess, density)


def _calibrated_together(runs: Sequence[Run]) -> list[Run]:
    """Fit one calibration for all specialists of the same table and backbone.

    Few regions have enough cases for a separate calibration: on held-out validation pictures of the
    first shipped specialists, separate calibrations had a higher log loss than a shared one.
    Thresholds stay separate.
    """
    families: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.stage.kind is Kind.FRACTURE and run.stage.region != ANY_REGION:
            family = run.described["index_digest"], run.network.arch
            families.setdefault(family, []).append(run)
    results: dict[Path, Mapping[str, Any]] = {}
    for members in families.values():
        if len(members) == 1:
            continue
        tables = [_validation(run) for run in members]
        labels, logits = (
            np.concatenate([getattr(table, part) for table in tables])
            for part in ("labels", "logits")
        )
        fitted = fit_calibration(labels, logits)
        weighing = None
        if all(run.result.get("closer") for run in members):
            closest = np.concatenate([table.closest for table in tables])
            weighing = fit_weighing(labels, logits, closest)
        results |= {
            run.folder: recalibrated(run.result, table, *fitted)
            | (_weighed(run.result, table, weighing) if weighing else {})
            for run, table in zip(members, tables, strict=True)
        }
    return [replace(run, result=results.get(run.folder, run.result)) for run in runs]


class ValidationTable(NamedTuple):
    """Predictions of a specialist for its validation pictures, original and in random views.

    Attributes:
        studies: (N,) a key for each view of each study, see
            :func:`stages.training.assessment.view_keys`; empty in older runs.
        plain: (N,) whether the view is the original.
        labels: (N,) 0 or 1.
        logits: (N,) of the first look.
        closest: (N,) highest logit of the closer looks; NaN without closer looks.
    """

    studies: NDArray[np.str_]
    plain: NDArray[np.bool_]
    labels: Labels
    logits: Array
    closest: Array


def recalibrated(
    result: Mapping[str, Any], table: ValidationTable, temperature: float, bias: float
) -> dict[str, Any]:
    """A specialist's result with a new calibration and new thresholds.

    Args:
        result: As in ``result.json``.
        table: Predictions for its validation pictures.
        temperature: See :class:`pipeline.bundle.AnswerSpec`.
        bias: See :class:`pipeline.bundle.AnswerSpec`.

    Returns:
        The content of ``result.json`` with the calibration, the operating points and the points
        for studies replaced.
    """
    pair = [np.array([value], np.float32) for value in (temperature, bias)]
    scores = probabilities(table.logits, *pair)
    points = operating_points(table.labels, scores, plain=table.plain)
    return {
        **result,
        "temperature": pair[0].tolist(),
        "bias": pair[1].tolist(),
        "operating_points": {name: p.model_dump(mode="json") for name, p in points.items()},
        **described(fit_study_points(table.studies, table.labels, scores, plain=table.plain)),
    }


def _weighed(
    result: Mapping[str, Any], table: ValidationTable, weighing: Weighing
) -> dict[str, Any]:
    """The contract of a specialist's closer looks with the shared weighing."""
    before = CloserLooks.model_validate(result["closer"])
    scores = weighing.probabilities(table.logits, table.closest)
    contract = closer_contract(
        weighing, before.canvas, before.count, table.labels, scores, table.studies, table.plain
    )
    return {"closer": contract}


def _validation(run: Run) -> ValidationTable:
    """Read the predictions of a specialist for its validation pictures."""
    table = pd.read_csv(run.folder / PREDICTIONS, dtype={"study": str})
    table = table[table["split"].isin(("val", SHIFTED))]
    for name, missing in (("study", ""), (CLOSEST, np.nan)):
        if name not in table:
            table = table.assign(**{name: missing})
    plain = (table["split"] == "val").to_numpy(bool)
    # The views of a picture are in consecutive order.
    views = np.where(plain, 0, 1 + table.groupby(["split", "path"]).cumcount().to_numpy())
    return ValidationTable(
        view_keys(table["study"].fillna("").to_numpy(str), views),
        plain,
        table["label"].to_numpy(np.float32),
        table[f"logit_{run.stage.outputs[0]}"].to_numpy(np.float32),
        table[CLOSEST].to_numpy(np.float32),
    )
