"""Assessment of a trained network: calibration on validation, figures on the test split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from lightning.fabric import Fabric
from numpy.typing import NDArray

from pipeline.bundle import FractureTypes, Kind
from pipeline.domain import REGIONS, Array
from pipeline.preprocess import PreprocessSpec
from pipeline.progress import Progress
from pipeline.report.record import path_text

from ..data.dataset import RadiographDataset, Sources
from ..data.feature_cache import Views, find_views
from ..network.model import Network
from ..samples import Index, Sample, Split
from ..settings import StageConfig
from ..stage_spec import StageSpec
from ..statistics.calibration import (
    DEFAULT_POINT,
    fit_calibration,
    fit_types,
    operating_points,
    probabilities,
    type_probabilities,
)
from ..statistics.metrics import Labels, auc_estimate, rate, sensitivity, share, specificity
from ..statistics.study_thresholds import StudyPoints, fit_study_points
from .closer_looks import closer_canvas, closer_contract, fit_weighing, look_closer
from .environment import make_fabric
from .loop import predict

PREDICTIONS = "predictions.csv"
SHIFTED = "val-shifted"
"""Value of the column ``split``: a random view of a validation picture."""
CLOSEST = "logit_closest"
"""Column of the highest logit of the closer looks."""


def assess(
    run: Path, stage: StageSpec, network: Network, index: Index, preprocess: PreprocessSpec,
    config: StageConfig, progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Calibrate on the validation split, evaluate on the test split, and save all predictions.

    Returns:
        JSON for ``result.json``: temperature and bias; of a specialist also thresholds, and test
        figures with 95 % intervals and their baselines.
    """
    fabric = make_fabric(config.train)
    network.to(fabric.device)
    predictor = _Predictor(network, stage, preprocess, config, fabric)
    views = find_views(network, stage, index, preprocess, config, fabric, progress)
    predicted = [predictor.predict(index, "val", views), predictor.predict(index, "test", views)]
    predicted += [
        predictor.predict(index, "val", None, view)
        for view in range(1, 1 + config.calibration_views)
    ]
    frames = [_frame(answers, index.source.parent, stage) for answers in predicted]
    pd.concat(frames).to_csv(run / PREDICTIONS, index=False, lineterminator="\n")

    validation, (_, tested, *_) = [a for a in predicted if a.split == "val"], predicted
    targets = np.concatenate([answers.targets for answers in validation])
    logits = np.concatenate([answers.logits for answers in validation])
    pairs = [fit_calibration(targets[:, k], logits[:, k]) for k in range(len(stage.labels))]
    temperature, bias = (np.array(values, np.float32) for values in zip(*pairs, strict=True))
    result = {"temperature": temperature.tolist(), "bias": bias.tolist()}
    if stage.kind is Kind.REGION:
        return result  # thresholds and test figures depend on the density gate
    decisions = slice(0, len(stage.labels))
    scores = probabilities(logits[:, decisions], temperature, bias)
    test_scores = probabilities(tested.logits[:, decisions], temperature, bias)
    result |= _decided(validation, scores[:, 0], tested, test_scores[:, 0])
    if stage.types is not None:
        rows = slice(len(stage.labels), None)
        types = fit_types(stage.types, targets[:, rows], logits[:, rows])
        result |= {
            "types": types.model_dump(mode="json"),
            "types_test": _type_figures(types, tested),
        }
    if predictor.canvas is not None:
        result |= _closer(predictor.canvas, config, validation, tested)
    return result


def _decided(
    validation: Sequence[_Predictions], scores: Array, tested: _Predictions, test_scores: Array
) -> dict[str, Any]:
    """Operating points of a specialist from validation, and its figures on the test split."""
    labels, keys, plain = _cases(validation)
    points = operating_points(labels, scores, plain=plain)
    stored = {name: point.model_dump(mode="json") for name, point in points.items()}
    threshold = points[DEFAULT_POINT].threshold
    figures = fracture_figures(tested.samples, tested.targets[:, 0], test_scores, threshold)
    result = {"operating_points": stored, "default_point": DEFAULT_POINT, "test": figures}
    return result | described(fit_study_points(keys, labels, scores, plain=plain))


def _type_figures(types: FractureTypes, tested: _Predictions) -> dict[str, Any]:
    """AUC of each type on test pictures of fractures with known types."""
    count = len(types.labels)
    scores = type_probabilities(types, tested.logits[:, -count:])
    groups = [sample.group for sample in tested.samples]
    figures = {}
    for name, truth, predicted in zip(
        types.labels, tested.targets[:, -count:].T, scores.T, strict=True
    ):
        rows = np.flatnonzero(~np.isnan(truth))
        auc = auc_estimate(truth[rows], predicted[rows], [groups[i] for i in rows])
        positives = int((truth[rows] == 1).sum())
        figures[name] = {"pictures": len(rows), "positives": positives, "auc": auc.model_dump()}
    return figures


def _closer(
    canvas: PreprocessSpec,
    config: StageConfig,
    validation: Sequence[_Predictions],
    tested: _Predictions,
) -> dict[str, Any]:
    """Contract and test figures of all looks combined."""
    labels, keys, plain = _cases(validation)
    first = np.concatenate([answers.logits[:, 0] for answers in validation])
    closest = np.concatenate([answers.closest for answers in validation])
    weighing = fit_weighing(labels, first, closest)
    count = config.closer.count  # type: ignore[attr-defined]
    scores = weighing.probabilities(first, closest)
    contract = closer_contract(weighing, canvas, count, labels, scores, keys, plain)
    threshold = contract["operating_points"][DEFAULT_POINT]["threshold"]
    combined = weighing.probabilities(tested.logits[:, 0], tested.closest)
    figures = fracture_figures(tested.samples, tested.targets[:, 0], combined, threshold)
    return {"closer": contract, "closer_test": figures}


def _cases(
    validation: Sequence[_Predictions],
) -> tuple[Labels, NDArray[np.str_], NDArray[np.bool_]]:
    """(N,) label and study of validation pictures in all views, and which views are originals."""
    labels = np.concatenate([answers.targets[:, 0] for answers in validation])
    views = np.concatenate([np.full(len(answers.samples), answers.view) for answers in validation])
    studies = np.array([s.study for answers in validation for s in answers.samples], str)
    return labels, view_keys(studies, views), views == 0


def view_keys(studies: NDArray[np.str_], views: NDArray[np.intp]) -> NDArray[np.str_]:
    """A key for each view of each study; for original pictures it is the study.

    Args:
        studies: (N,) study of each picture; empty if unknown.
        views: (N,) number of the view, 0 for the original picture.
    """
    pairs = zip(studies.tolist(), views.tolist(), strict=True)
    return np.array([f"{key} (view {view})" if key and view else key for key, view in pairs], str)


class _Predictions(NamedTuple):
    """Predictions of a network for the pictures of a split.

    Attributes:
        split: The split.
        samples: N rows of the table.
        targets: (N, K), NaN if unknown.
        logits: (N, K).
        closest: (N,) highest logit of the closer looks; empty without closer looks.
        view: 0 for the original pictures, else the number of a random view.
    """

    split: Split
    samples: list[Sample]
    targets: Array
    logits: Array
    closest: Array
    view: int = 0


@dataclass(frozen=True, slots=True)
class _Predictor:
    """A trained network with the settings of its inference."""

    network: Network
    stage: StageSpec
    preprocess: PreprocessSpec
    config: StageConfig
    fabric: Fabric

    @property
    def canvas(self) -> PreprocessSpec | None:
        """Canvas of the closer looks; None without closer looks."""
        closer = getattr(self.config, "closer", None)
        if closer is None or not closer.count or not self.network.heatmap:
            return None
        return closer_canvas(self.preprocess, closer)

    def predict(
        self, index: Index, split: Split, views: Views | None, view: int = 0
    ) -> _Predictions:
        """Predict a split, in its original pictures or in a random view that keeps the labels."""
        samples = [sample for sample in index.of(split) if self.stage.selects(sample)]
        targets, config = self.stage.targets(samples), self.config
        data = RadiographDataset(samples, targets, self.preprocess)
        if view:
            # Without close-up, magnification and shift, marked fractures stay in view.
            settings = config.augment.model_copy(
                update={
                    "zoom": 0.0,
                    "shift": 0.0,
                    "scale": (min(config.augment.scale[0], 1.0), 1.0),
                }
            )
            seed = config.train.seed + 1000 + view
            data.sources = Sources(settings, seed, self.stage.concerns_fractures)
        if self.canvas is not None:
            count = config.closer.count  # type: ignore[attr-defined]
            first, closest = look_closer(
                self.network, data, self.canvas, count, config.data.workers, self.fabric
            )
            return _Predictions(split, samples, targets, first, closest, view)
        logits = predict(
            self.network, data, config.optim.batch_size, config.data.workers, self.fabric,
            None if view else views,
        )  # fmt: skip
        return _Predictions(split, samples, targets, logits, np.zeros(0, np.float32), view)


def described(studies: StudyPoints) -> dict[str, Any]:
    """Operating points of whole studies, or the reason for none, as in ``result.json``."""
    points = {name: point.model_dump(mode="json") for name, point in studies.points.items()}
    return {"study_points": points, "no_study_points": studies.reason}


def _frame(answers: _Predictions, root: Path, stage: StageSpec) -> pd.DataFrame:
    samples = answers.samples
    table = {
        "path": [path_text(sample.path, root) for sample in samples],
        "split": answers.split if not answers.view else SHIFTED,
        "group": [sample.group for sample in samples],
        "study": [sample.study for sample in samples],
        "regions": [sample.regions for sample in samples],
        "origin": [sample.origin for sample in samples],
        "label": [sample.label for sample in samples],
    }
    logits = {f"logit_{name}": answers.logits[:, k] for k, name in enumerate(stage.outputs)}
    closest = {CLOSEST: answers.closest} if len(answers.closest) else {}
    return pd.DataFrame(table | logits | closest)


def route_figures(
    samples: Sequence[Sample], scores: Array, thresholds: Array, passes: NDArray[np.bool_]
) -> dict[str, Any]:
    """Routing figures of a split: arg-max accuracy, and rates of refusal.

    Args:
        samples: N rows.
        scores: (N, R) calibrated probabilities in the order of ``REGIONS``.
        thresholds: (R,) threshold of each region.
        passes: (N,) whether the density gate lets a picture pass.
    """
    groups = [sample.group for sample in samples]
    single = np.array([sample.single_region is not None for sample in samples])
    truth = np.array([REGIONS.index(s.single_region) if s.single_region else -1 for s in samples])
    fires = (scores >= thresholds).any(1) & passes
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
    """Figures of a specialist for all pictures, single-region pictures, and those without hardware.

    Args:
        samples: N rows.
        labels: (N,) 0 or 1.
        scores: (N,) calibrated probabilities.
        threshold: Threshold of the default operating point.
    """
    subsets = {
        "all": np.ones(len(samples), bool),
        "single_region": np.array([s.single_region is not None for s in samples]),
        "without_hardware": np.array(["hardware" not in s.flags.split(";") for s in samples]),
    }
    figures = {}
    for name, mask in subsets.items():
        known, predicted = labels[mask], scores[mask]
        groups = [s.group for s, chosen in zip(samples, mask, strict=True) if chosen]
        calls = predicted >= threshold
        majority = max(int((known == 1).sum()), int((known == 0).sum()))
        figures[name] = {
            "pictures": len(known),
            "positives": int(known.sum()),
            "auc": auc_estimate(known, predicted, groups).model_dump(),
            "sensitivity": sensitivity(known, calls).model_dump(),
            "specificity": specificity(known, calls).model_dump(),
            "accuracy": rate(int((calls == (known == 1)).sum()), len(known)).model_dump(),
            "baseline_majority_accuracy": rate(majority, len(known)).model_dump(),
        }
    return figures
