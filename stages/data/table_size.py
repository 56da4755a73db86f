"""Warnings about tables with too few pictures, for training, result and model card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.bundle import Kind
from pipeline.domain import REGIONS, Array

from ..samples import NONE, Sample
from ..stage_spec import StageSpec
from ..statistics.calibration import MIN_CASES


def sample_size_warnings(
    stage: StageSpec, learn: Sequence[Sample], check: Sequence[Sample]
) -> list[str]:
    """Reasons why the result of a run is unreliable, one sentence each.

    Args:
        stage: The trained stage.
        learn: Its training pictures.
        check: Its validation pictures, which determine epoch, calibration and thresholds.
    """
    if stage.kind is Kind.FRACTURE:
        return list(_few_labels(check))
    return [*_nothing_to_refuse(learn), *_few_views(learn, check)]


def _few_labels(check: Sequence[Sample]) -> Iterator[str]:
    positives = sum(sample.label == 1 for sample in check)
    others = len(check) - positives
    if min(positives, others) < MIN_CASES:
        yield (
            f"the validation split has {positives} positive and {others} other pictures; epoch, "
            f"calibration and thresholds depend on them and need {MIN_CASES} of each"
        )


def _nothing_to_refuse(learn: Sequence[Sample]) -> Iterator[str]:
    views = _views(learn)
    for region, view in zip(REGIONS, views.T, strict=True):
        if (view == 1).any() and not (view == 0).any():
            yield (
                f"no training picture is known to be without {region}: the router will classify "
                f"every picture as {region}"
            )
    if not any(sample.regions == NONE for sample in learn):
        yield (
            f"every training picture shows {', '.join(REGIONS)}: the router's behaviour on another "
            "part of the body is unknown; add unsupported pictures with `fxpipe index --negatives`"
        )


def _few_views(learn: Sequence[Sample], check: Sequence[Sample]) -> Iterator[str]:
    learned, checked = _views(learn), _views(check)
    for k, region in enumerate(REGIONS):
        count = int((checked[:, k] == 1).sum())
        if (learned[:, k] == 1).any() and count < MIN_CASES:
            yield (
                f"the validation split shows {region} in {count} pictures; calibration and "
                f"threshold of that region depend on them and need {MIN_CASES}"
            )


def _views(samples: Sequence[Sample]) -> Array:
    """(N, R) float32: 1 in view, 0 not, NaN unknown."""
    vectors = [sample.region_vector() for sample in samples]
    return np.array(vectors, np.float32).reshape(-1, len(REGIONS))
