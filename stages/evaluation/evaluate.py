"""An evaluation from the table to the page."""

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
from pipeline.runtime.closer import Closer
from pipeline.runtime.session import Weights

from ..data.index import SPLITS, Index, Sample
from ..metrics import BOOTSTRAPS, ECE_BINS
from ..studies import NO_STUDIES, StudyBy
from .baselines import add_twins
from .figures import (
    Figures,
    Settings,
    cross_region_figures,
    fracture_figures,
    plain_figures,
    pointing_figures,
    risk_figures,
    subgroup_figures,
)
from .gate import gate_figures
from .header import header_figures
from .limb import limb_figures
from .page import write_page
from .plots import draw_all
from .predictions import predict, read_predictions, write_predictions
from .routing import end_to_end_figures, region_figures
from .studies import study_figures
from .tables import write_tables
from .truth import add_truth
from .under_shift import AskedShifts, predict_shifts, shift_figures

log = logging.getLogger(__name__)

SCHEMA = 3
"""Of ``evaluation.json``; raised when a name in it changes its meaning."""
PREDICTIONS = "predictions.csv"
SHIFTED = "predictions_shifts.csv"
RESULT = "evaluation.json"
PAGE = "index.html"

Choice = Literal["train", "val", "test", "all"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be evaluated.

    Attributes:
        split: Which rows of the table; ``all`` for train, val and test.
        with_excluded: Whether the excluded rows are taken too.
        prevalences: Shares of fractures in (0, 1) for which PPV and NPV are wanted.
        seed: Of the bootstrap.
        study_by: The column that tells which pictures are one study.
        shifts: What of the suite of shifts; None for nothing of it.
    """

    split: Choice = "test"
    with_excluded: bool = False
    prevalences: tuple[float, ...] = ()
    seed: int = 0
    study_by: StudyBy = "study"
    shifts: AskedShifts | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of it: ``evaluation.json`` before it is written."""

    facts: dict[str, Any]
    figures: Figures


def chosen_rows(index: Index, asked: Asked) -> tuple[Sample, ...]:
    """The rows to evaluate, in the order of the table.

    Raises:
        UsageError: There are none in that split.
    """
    splits = set(SPLITS[:3] if asked.split == "all" else [asked.split])
    if not any(sample.split in splits for sample in index.samples):
        there = Counter(sample.split for sample in index.samples)
        raise UsageError(
            f"{index.source}: no rows of split {asked.split}; there are "
            f"{', '.join(f'{n} {name}' for name, n in there.items()) or 'no rows at all'}",
            "name another with --split",
        )
    if asked.with_excluded:
        splits.add("excluded")
    return tuple(sample for sample in index.samples if sample.split in splits)


def evaluate(
    index: Index, weights: Weights, config: RunConfig, asked: Asked, output: Path,
    progress: Progress,
) -> Evaluation:  # fmt: skip
    """Ask the bundles, save every answer, and compute every figure from what was saved.

    Args:
        index: The table.
        weights: Opened bundles.
        config: What they were opened with.
        asked: Rows and figures.
        output: Existing folder for all files.
        progress: Advanced once for each row, each training picture that is looked up, and each
            row under each shift.

    Raises:
        UsageError: The table has no rows of the split.
        DeviceError: The device gave up.
    """
    samples = chosen_rows(index, asked)
    facts = describe(index, weights, samples, asked)
    home, prints = predict(samples, index.source.parent, weights, config, progress)
    table, no_twins = add_twins(home, prints, index, config, progress)
    write_predictions(add_truth(table), output / PREDICTIONS)
    # From the file, so that what a reader computes from it is what was computed here.
    table = read_predictions(output / PREDICTIONS)
    settings = Settings(
        asked.prevalences, asked.seed, no_twins, facts["no_region_stage"], facts["no_gate"],
        asked.study_by,
    )  # fmt: skip
    (output / SHIFTED).unlink(missing_ok=True)
    under_shift = None
    if asked.shifts:
        under_shift = predict_shifts(
            samples, home, index.source.parent, weights, config, asked.shifts, progress
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
    """Every figure, by chapter, from predictions with truth and twins.

    Without a region stage the chapters ``region``, ``gate``, ``header`` and ``cross_region`` are
    None; so are ``gate`` without a density gate, ``studies`` without studies and ``header``
    without headers; the facts say why. Without predictions under shift ``shifts`` is None.
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
    index: Index, weights: Weights, samples: tuple[Sample, ...], asked: Asked
) -> dict[str, Any]:
    """What is evaluated, with what, and whether the networks may know the pictures."""
    router = weights.region
    status, words = seen_before(index, weights, asked)
    if status == "yes":
        log.warning("%s", words)
    targets = sorted({n.spec.target for n in weights.fracture.values()})
    if other := another_question(samples, targets):
        log.warning("%s", other)
    return {
        "table": index.source.name,
        "table_digest": index.digest,
        "split": asked.split,
        "with_excluded": asked.with_excluded,
        "pictures": len(samples),
        "groups": len({sample.group for sample in samples}),
        "splits": dict(Counter(sample.split for sample in index.samples)),
        "seen_in_training": {"status": status, "words": words},
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
        "another_question": other,
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
        "study_by": asked.study_by,
        "no_studies": "" if any(getattr(s, asked.study_by) for s in samples) else NO_STUDIES,
        "study_points": {
            region: {"name": point.name, "threshold": point.threshold}
            for region, point in weights.study_points.items()
        },
        "no_region_stage": "no region stage in these weights" if router is None else "",
        "gate": weights.gate and weights.gate.model_dump(mode="json"),
        "no_gate": weights.ungated if router else "No region stage in these weights.",
        "precision": weights.precision.value,
        "device": weights.device,
        "prevalences": list(asked.prevalences),
        "seed": asked.seed,
        "bootstraps": BOOTSTRAPS,
        "ece_bins": ECE_BINS,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
    }  # fmt: skip


def seen_before(
    index: Index, weights: Weights, asked: Asked
) -> tuple[Literal["yes", "no", "unknown"], str]:
    """Whether the networks learned from, or were tuned on, the pictures that are evaluated.

    Returns:
        The answer, and the reason as a sentence.
    """
    known = {network.spec.provenance.index_digest for network in weights.networks}
    if known != {index.digest}:
        return "unknown", (
            "The table is not, to the letter, the one that the networks were trained with: "
            "whether they have seen these pictures cannot be told from here."
        )
    if asked.split == "test":
        return "no", "These are test rows of the very table that the networks were trained with."
    return "yes", (
        f"The networks have seen these pictures: they learned or were tuned on split "
        f"{asked.split} of this very table. The figures flatter them."
    )


def another_question(samples: Sequence[Sample], targets: Sequence[str]) -> str:
    """That the labels mean something else than the networks say, as a sentence; empty if not."""
    kinds = sorted({sample.label_kind for sample in samples if sample.label is not None})
    if set(kinds) <= set(targets):
        return ""
    return (
        f"The labels say {' and '.join(kinds)}, the networks {' and '.join(targets)}: what is "
        "measured is an answer to another question."
    )


def _versions() -> dict[str, str]:
    names = (DISTRIBUTION, "numpy", "onnxruntime", "onnxruntime-gpu", "pillow", "scikit-learn")
    return {"python": platform.python_version(), **versions_of(names)}
