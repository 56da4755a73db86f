"""Evaluation of bundles: predictions, figures, tables, plots and page."""

from __future__ import annotations

import logging
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from pipeline import DISTRIBUTION, versions_of
from pipeline.bundle import write_json
from pipeline.config import RunConfig
from pipeline.errors import UsageError
from pipeline.progress import Progress
from pipeline.runtime.closer_looks import Closer
from pipeline.runtime.session import Weights

from ..samples import SPLITS, Index, Sample
from ..statistics.metrics import BOOTSTRAPS, ECE_BINS
from ..statistics.study_thresholds import NO_STUDIES, StudyBy
from .baselines import add_twins
from .figures import (
    Figures,
    Settings,
    cross_region_figures,
    fracture_figures,
    plain_figures,
    risk_figures,
    subgroup_figures,
)
from .gate import gate_figures
from .header import header_figures
from .limb import limb_figures
from .page import write_page
from .plots import draw_all
from .pointing import pointing_figures
from .predictions import predict, read_predictions, write_predictions
from .routing import end_to_end_figures, region_figures
from .studies import study_figures
from .tables import write_tables
from .truth import add_truth
from .under_shift import ShiftSelection, predict_shifts, shift_figures

log = logging.getLogger(__name__)

SCHEMA = 3
"""Version of ``evaluation.json``; incremented when a key changes its meaning."""
PREDICTIONS = "predictions.csv"
SHIFTED = "predictions_shifts.csv"
RESULT = "evaluation.json"
PAGE = "index.html"

Choice = Literal["train", "val", "test", "all"]


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """Rows and figures to evaluate.

    Attributes:
        split: Which rows of the table; ``all`` for train, val and test.
        with_excluded: Whether to include the excluded rows.
        prevalences: Shares of fractures in (0, 1) for which to compute PPV and NPV.
        seed: Seed of the bootstrap.
        study_by: The column that identifies the study of a picture.
        shifts: Shifts to evaluate; None for none.
    """

    split: Choice = "test"
    with_excluded: bool = False
    prevalences: tuple[float, ...] = ()
    seed: int = 0
    study_by: StudyBy = "study"
    shifts: ShiftSelection | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Result of an evaluation: the content of ``evaluation.json``."""

    facts: dict[str, Any]
    figures: Figures


def chosen_rows(index: Index, request: EvaluationRequest) -> tuple[Sample, ...]:
    """The rows to evaluate, in the order of the table.

    Raises:
        UsageError: The table has no rows of the split.
    """
    splits = set(SPLITS[:3] if request.split == "all" else [request.split])
    if not any(sample.split in splits for sample in index.samples):
        counts = Counter(sample.split for sample in index.samples)
        raise UsageError(
            f"{index.source}: no rows of split {request.split}; the table has "
            f"{', '.join(f'{n} {name}' for name, n in counts.items()) or 'no rows'}",
            "choose another split with --split",
        )
    if request.with_excluded:
        splits.add("excluded")
    return tuple(sample for sample in index.samples if sample.split in splits)


def evaluate(
    index: Index, weights: Weights, config: RunConfig, request: EvaluationRequest, output: Path,
    progress: Progress,
) -> Evaluation:  # fmt: skip
    """Run the bundles, save all predictions, and compute every figure from the saved file.

    Args:
        index: The table.
        weights: Opened bundles.
        config: The settings they were opened with.
        request: Rows and figures.
        output: Existing folder for all files.
        progress: Advanced once per row, per training picture of the look-up, and per row and
            shift.

    Raises:
        UsageError: The table has no rows of the split.
        DeviceError: Inference on the device failed.
    """
    samples = chosen_rows(index, request)
    facts = describe(index, weights, samples, request)
    home, prints = predict(samples, index.source.parent, weights, config, progress)
    table, no_twins = add_twins(home, prints, index, config, progress)
    write_predictions(add_truth(table), output / PREDICTIONS)
    # Read from the file, so that figures recomputed from it equal those computed here.
    table = read_predictions(output / PREDICTIONS)
    settings = Settings(
        request.prevalences, request.seed, no_twins, facts["no_region_stage"], facts["no_gate"],
        request.study_by,
    )  # fmt: skip
    (output / SHIFTED).unlink(missing_ok=True)
    under_shift = None
    if request.shifts:
        under_shift = predict_shifts(
            samples, home, index.source.parent, weights, config, request.shifts, progress
        )
        write_predictions(under_shift, output / SHIFTED)
        under_shift = read_predictions(output / SHIFTED)
    figures = all_figures(table, settings, under_shift)
    facts |= {
        "labelled": int(table["label"].notna().sum()),
        "failed": int((table["status"] == "failed").sum()),
        "no_look_up": no_twins,
        "header": config.header,
        "header_margin": config.header_margin,
    }
    content = {"schema_version": SCHEMA, "facts": facts, **plain_figures(figures)}
    write_json(output / RESULT, content)
    write_tables(figures, table, output)
    plots = draw_all(table, output, settings)
    write_page(facts, figures, plots, output / PAGE)
    return Evaluation(facts, figures)


def all_figures(
    table: pd.DataFrame, settings: Settings, under_shift: pd.DataFrame | None = None
) -> Figures:
    """All figures, by chapter, from predictions with truth and twins.

    Without a region stage the chapters ``region``, ``gate``, ``header`` and ``cross_region`` are
    None; so are ``gate`` without a density gate, ``studies`` without studies and ``header``
    without headers; the facts give the reason. Without predictions under shift ``shifts`` is
    None.
    """
    return {
        "end_to_end": end_to_end_figures(table, settings),
        "region": region_figures(table, settings),
        "gate": gate_figures(table, settings),
        "header": header_figures(table, settings),
        "fracture": fracture_figures(table, settings),
        "cross_region": cross_region_figures(table, settings),
        "subgroups": subgroup_figures(table, settings),
        "risk_coverage": risk_figures(table, settings),
        "pointing": pointing_figures(table, settings),
        "limb": limb_figures(table, settings),
        "studies": study_figures(table, settings),
        "shifts": None if under_shift is None else shift_figures(under_shift, settings),
    }


def describe(
    index: Index, weights: Weights, samples: tuple[Sample, ...], request: EvaluationRequest
) -> dict[str, Any]:
    """Facts of an evaluation: table, bundles, settings, and whether training saw the pictures."""
    router = weights.region
    status, reason = seen_before(index, weights, request)
    if status == "yes":
        log.warning("%s", reason)
    targets = sorted({n.spec.target for n in weights.fracture.values()})
    if mismatch := label_mismatch(samples, targets):
        log.warning("%s", mismatch)
    return {
        "table": index.source.name,
        "table_digest": index.digest,
        "split": request.split,
        "with_excluded": request.with_excluded,
        "pictures": len(samples),
        "groups": len({sample.group for sample in samples}),
        "splits": dict(Counter(sample.split for sample in index.samples)),
        "seen_in_training": {"status": status, "words": reason},
        "bundles": {
            network.spec.name: {
                "sha256": network.digest,
                "run": network.spec.provenance.run,
                "created": network.spec.provenance.created,
                "data": network.spec.provenance.data,
                "index_digest": network.spec.provenance.index_digest,
            }
            for network in weights.networks
        },
        "targets": targets,
        "another_question": mismatch,
        "operating_points": {
            region: {
                "name": point.name, "threshold": point.threshold,
                "doubt_below": point.doubt_below,
            }
            for region, point in weights.points.items()
        },
        "looks": {
            region: stage.count if isinstance(stage, Closer) else 1
            for region, stage in weights.fracture.items()
        },
        "route_thresholds": {} if router is None else dict(router.spec.route_thresholds),
        "study_by": request.study_by,
        "no_studies": "" if any(getattr(s, request.study_by) for s in samples) else NO_STUDIES,
        "study_points": {
            region: {"name": point.name, "threshold": point.threshold}
            for region, point in weights.study_points.items()
        },
        "no_region_stage": "no region stage in these weights" if router is None else "",
        "gate": weights.gate and weights.gate.model_dump(mode="json"),
        "no_gate": weights.gate_warning if router else "No region stage in these weights.",
        "precision": weights.precision.value,
        "device": weights.device,
        "prevalences": list(request.prevalences),
        "seed": request.seed,
        "bootstraps": BOOTSTRAPS,
        "ece_bins": ECE_BINS,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
    }  # fmt: skip


def seen_before(
    index: Index, weights: Weights, request: EvaluationRequest
) -> tuple[Literal["yes", "no", "unknown"], str]:
    """Whether the networks were trained or tuned on the evaluated pictures.

    Returns:
        The answer, and the reason as a sentence.
    """
    known = {network.spec.provenance.index_digest for network in weights.networks}
    if known != {index.digest}:
        return "unknown", (
            "The table differs from the one that the networks were trained with: it is unknown "
            "whether they have seen these pictures."
        )
    if request.split == "test":
        return "no", "These are test rows of the table that the networks were trained with."
    return "yes", (
        f"The networks have seen these pictures: they were trained or tuned on split "
        f"{request.split} of this table. The figures are too optimistic."
    )


def label_mismatch(samples: Sequence[Sample], targets: Sequence[str]) -> str:
    """A warning if the labels mean something else than the networks' targets, else empty."""
    kinds = sorted({sample.label_kind for sample in samples if sample.label is not None})
    if set(kinds) <= set(targets):
        return ""
    return (
        f"The labels mean {' and '.join(kinds)}, the networks predict {' and '.join(targets)}: "
        "the figures do not measure the networks' own target."
    )


def _versions() -> dict[str, str]:
    names = (DISTRIBUTION, "numpy", "onnxruntime", "onnxruntime-gpu", "pillow", "scikit-learn")
    return {"python": platform.python_version(), **versions_of(names)}
