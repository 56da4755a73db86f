"""What a finished network is worth: calibration on validation, figures on the test split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.bundle import Kind
from pipeline.domain import REGIONS, Array
from pipeline.preprocess import PreprocessSpec
from pipeline.progress import Progress
from pipeline.report.record import path_text

from .calibrate import (
    DEFAULT_POINT,
    fit_calibration,
    operating_points,
    probabilities,
    route_threshold,
)
from .config import StageConfig
from .data.dataset import RadiographDataset
from .data.index import Index, Sample, Split
from .data.views import find_views
from .metrics import auc_estimate, rate, sensitivity, share, specificity
from .model import Network
from .spec import StageSpec
from .studies import StudyPoints, fit_study_points
from .train import make_fabric, predict

PREDICTIONS = "predictions.csv"


def assess(
    run: Path, stage: StageSpec, network: Network, index: Index, preprocess: PreprocessSpec,
    config: StageConfig, progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Calibrate on the validation split, measure on the test split, save every prediction.

    Returns:
        JSON for ``result.json``: temperature, bias, thresholds, and test figures with 95 %
        intervals beside their baselines.
    """
    fabric = make_fabric(config.train)
    network.to(fabric.device)
    views = find_views(network, stage, index, preprocess, config, fabric, progress)
    rows: dict[Split, tuple[list[Sample], Array, Array]] = {}
    frames = []
    for split in ("val", "test"):
        samples = [sample for sample in index.of(split) if stage.selects(sample)]
        targets = stage.targets(samples)
        data = RadiographDataset(samples, targets, preprocess)
        logits = predict(network, data, config.optim.batch_size, config.data.workers, fabric, views)
        rows[split] = (samples, targets, logits)
        frames.append(_frame(split, samples, index.source.parent, stage, logits))
    pd.concat(frames).to_csv(run / PREDICTIONS, index=False, lineterminator="\n")

    _, targets, logits = rows["val"]
    pairs = [fit_calibration(targets[:, k], logits[:, k]) for k in range(len(stage.labels))]
    temperature, bias = (np.array(values, np.float32) for values in zip(*pairs, strict=True))
    result = {"temperature": temperature.tolist(), "bias": bias.tolist()}
    speaks = slice(0, len(stage.labels))
    scores = probabilities(logits[:, speaks], temperature, bias)
    samples, wanted, logits = rows["test"]
    tested = probabilities(logits[:, speaks], temperature, bias)
    if stage.kind is Kind.REGION:
        thresholds = {
            name: route_threshold(targets[:, k], scores[:, k])
            for k, name in enumerate(stage.labels)
        }
        figures = route_figures(samples, tested, np.array(list(thresholds.values())))
        return result | {"route_thresholds": thresholds, "test": figures}
    points = operating_points(targets[:, 0], scores[:, 0])
    stored = {name: point.model_dump(mode="json") for name, point in points.items()}
    threshold = points[DEFAULT_POINT].threshold
    figures = fracture_figures(samples, wanted[:, 0], tested[:, 0], threshold)
    keys = np.array([sample.study for sample in rows["val"][0]], str)
    result |= {"operating_points": stored, "default_point": DEFAULT_POINT, "test": figures}
    return result | described(fit_study_points(keys, targets[:, 0], scores[:, 0]))


def described(studies: StudyPoints) -> dict[str, Any]:
    """Points for whole studies, and why there are none, as ``result.json`` tells them."""
    points = {name: point.model_dump(mode="json") for name, point in studies.points.items()}
    return {"study_points": points, "no_study_points": studies.reason}


def _frame(
    split: Split, samples: Sequence[Sample], root: Path, stage: StageSpec, logits: Array
) -> pd.DataFrame:
    table = {
        "path": [path_text(sample.path, root) for sample in samples],
        "split": split,
        "group": [sample.group for sample in samples],
        "study": [sample.study for sample in samples],
        "regions": [sample.regions for sample in samples],
        "origin": [sample.origin for sample in samples],
        "label": [sample.label for sample in samples],
    }
    return pd.DataFrame(table | {f"logit_{n}": logits[:, k] for k, n in enumerate(stage.outputs)})


def route_figures(samples: Sequence[Sample], scores: Array, thresholds: Array) -> dict[str, Any]:
    """Routing on a split: arg-max accuracy, and who is let in and who is refused.

    Args:
        samples: N rows.
        scores: (N, 3) calibrated probabilities in the order of ``REGIONS``.
        thresholds: (3,) from which each region fires.
    """
    groups = [sample.group for sample in samples]
    single = np.array([sample.single_region is not None for sample in samples])
    truth = np.array([REGIONS.index(s.single_region) if s.single_region else -1 for s in samples])
    fires = (scores >= thresholds).any(1)
    refused = np.array([sample.regions == "none" for sample in samples])
    right = scores.argmax(1) == truth
    majority = np.bincount(truth[single]).argmax() if single.any() else -1

    def among(rows: Any, hits: Any) -> dict[str, Any]:
        chosen = np.flatnonzero(rows)
        return share(hits[chosen], [groups[i] for i in chosen]).model_dump()

    return {
        "pictures": len(samples),
        "single_region_pictures": int(single.sum()),
        "argmax_accuracy": among(single, right),
        "baseline_majority": among(single, truth == majority),
        "supported_refused": among(single, ~fires),
        "unsupported_refused": among(refused, ~fires),
        "unsupported_pictures": int(refused.sum()),
    }


def fracture_figures(
    samples: Sequence[Sample], labels: Array, scores: Array, threshold: float
) -> dict[str, Any]:
    """A specialist on a split, on all its pictures, on single-region ones, without hardware.

    Args:
        samples: N rows.
        labels: (N,) 0 or 1.
        scores: (N,) calibrated probabilities.
        threshold: Of the default operating point.
    """
    subsets = {
        "all": np.ones(len(samples), bool),
        "single_region": np.array([s.single_region is not None for s in samples]),
        "without_hardware": np.array(["hardware" not in s.flags.split(";") for s in samples]),
    }
    figures = {}
    for name, mask in subsets.items():
        known, given = labels[mask], scores[mask]
        groups = [s.group for s, chosen in zip(samples, mask, strict=True) if chosen]
        calls = given >= threshold
        majority = max(int((known == 1).sum()), int((known == 0).sum()))
        figures[name] = {
            "pictures": len(known),
            "positives": int(known.sum()),
            "auc": auc_estimate(known, given, groups).model_dump(),
            "sensitivity": sensitivity(known, calls).model_dump(),
            "specificity": specificity(known, calls).model_dump(),
            "accuracy": rate(int((calls == (known == 1)).sum()), len(known)).model_dump(),
            "baseline_majority_accuracy": rate(majority, len(known)).model_dump(),
        }
    return figures
