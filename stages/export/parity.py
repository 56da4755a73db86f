"""Parity check: decisions of exported and trained networks on real pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.bundle import FractureSpec, FractureTypes, Precision, RegionSpec
from pipeline.domain import Array, StageOutput
from pipeline.errors import ExportRefusedError

from ..network.density import similarity
from ..statistics.calibration import probabilities, type_probabilities
from ..training.finished_run import Run

BATCH = 16

TOLERANCE = {
    Precision.FP32: (1e-3, 0.001),
    Precision.FP16: (0.1, 0.01),
    Precision.INT8: (2.0, 0.05),
}
"""Largest |Δlogit|, and the margin: a decision may differ from the trained network's only if that
network's probability is closer to the threshold than this. The margin is the guarantee; the largest
|Δlogit| detects broken graphs. In int8 the largest values come from unsupported pictures, whose
logits are far from every threshold: 1.45 in the first network trained on such pictures, compared
with 0.12 on average."""

DENSITY_TOLERANCE = {
    Precision.FP32: (1e-3, 1e-4),
    Precision.FP16: (0.02, 0.002),
    Precision.INT8: (0.1, 0.02),
}
"""Largest |Δdensity|, and the margin in density within which the density gate may decide
differently from the trained network. The int8 trunk of the first shipped weights changed the
density of 60 pictures by 0.0035 on average and by at most 0.017."""


@dataclass(frozen=True, slots=True)
class Parity:
    """Comparison of an exported stage with the trained network.

    Attributes:
        name, precision: The bundle.
        pictures: Number of compared pictures.
        max_logit_difference, mean_logit_difference: |Δlogit| over pictures, labels and types.
        decisions: Total number of applied thresholds.
        flips: Decisions that differ where the trained network is at least a margin from the
            threshold.
        near_flips: Decisions that differ within the margin.
        margin: In calibrated probability; that of the density gate, in density, is smaller.
        tolerance: Largest |Δlogit| allowed.
        max_density_difference: |Δdensity| over pictures; None without a density gate.
    """

    name: str
    precision: Precision
    pictures: int
    max_logit_difference: float
    mean_logit_difference: float
    decisions: int
    flips: int
    near_flips: int
    margin: float
    tolerance: float
    max_density_difference: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the bundle may be shipped; NaN never passes."""
        density = self.max_density_difference or 0.0
        near = density <= DENSITY_TOLERANCE[self.precision][0]
        return self.flips == 0 and near and self.max_logit_difference <= self.tolerance

    def __str__(self) -> str:
        density = ""
        if self.max_density_difference is not None:
            limit, margin = DENSITY_TOLERANCE[self.precision]
            density = (
                f"|Δdensity| max {self.max_density_difference:.4f} (limit {limit}, "
                f"margin {margin}); "
            )
        return (
            f"{self.name} {self.precision}: {self.pictures} pictures, "
            f"|Δlogit| max {self.max_logit_difference:.4f} (limit {self.tolerance}) "
            f"mean {self.mean_logit_difference:.4f}; {density}{self.decisions} decisions, "
            f"{self.flips} flips outside the margin of {self.margin}, "
            f"{self.near_flips} inside: {'passed' if self.passed else 'REFUSED'}"
        )


@torch.inference_mode()
def reference(run: Run, images: Array) -> StageOutput:
    """Output of the trained network, uncut and in full precision.

    Args:
        run: The run; its density, if any, is :func:`stages.network.density.similarity`.
        images: (N, 1, H, W) float32 in [0, 1].
    """
    network = run.network.eval()
    batches = [torch.from_numpy(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
    columns = list(range(len(run.stage.labels)))
    all_logits = torch.cat([network(batch) for batch in batches]).float().numpy()
    logits = all_logits[:, columns]
    calibration = (np.array(run.result[name], np.float32) for name in ("temperature", "bias"))
    density = None
    if run.density is not None:
        depths = [network.depths(batch, run.described["cut"]) for batch in batches]
        density = similarity(torch.cat(depths).numpy(), run.density)
    types = _types(run, all_logits[:, len(columns) :])
    return StageOutput(
        run.stage.labels,
        logits,
        probabilities(logits, *calibration),
        density=density,
        types=types,
    )


def _types(run: Run, logits: Array) -> StageOutput | None:
    """Output of the trained network for fracture types, from its (N, T) other logits."""
    content = run.result.get("types")
    if content is None:
        return None
    types = FractureTypes.model_validate(content)
    return StageOutput(types.labels, logits, type_probabilities(types, logits))


def compare(spec: RegionSpec | FractureSpec, expected: StageOutput, actual: StageOutput) -> Parity:
    """Compare an exported stage with the trained network.

    Args:
        spec: Contract of the exported stage, with its thresholds.
        expected: Output of the trained network for N pictures.
        actual: Output of the exported stage for them.
    """
    tolerance, margin = TOLERANCE[spec.precision]
    flips = near = decisions = 0
    for trained, value, threshold, allowed in _decisions(spec, expected, actual):
        differ = (trained >= threshold) != (value >= threshold)
        close = np.abs(trained - threshold) < allowed
        flips += int((differ & ~close).sum())
        near += int((differ & close).sum())
        decisions += len(value)
    difference = np.abs(_logits(expected) - _logits(actual))
    return Parity(
        name=spec.name,
        precision=spec.precision,
        pictures=len(expected),
        max_logit_difference=float(difference.max()),
        mean_logit_difference=float(difference.mean()),
        decisions=decisions,
        flips=flips,
        near_flips=near,
        margin=margin,
        tolerance=tolerance,
        max_density_difference=_density_difference(expected, actual),
    )


def _logits(output: StageOutput) -> Array:
    """(N, K + T) of labels and types."""
    return (
        output.logits if output.types is None else np.hstack([output.logits, output.types.logits])
    )


def _decisions(
    spec: RegionSpec | FractureSpec, expected: StageOutput, actual: StageOutput
) -> Iterator[tuple[Array, Array, float, float]]:
    """Yield both values of every decision, its threshold, and the margin around it.

    The threshold of a fracture type is 0.5; types count only if the picture is not negative at
    every operating point.
    """
    margin = TOLERANCE[spec.precision][1]
    for k, label in enumerate(spec.labels):
        for threshold in _thresholds(spec, label):
            yield expected.probabilities[:, k], actual.probabilities[:, k], threshold, margin
    if isinstance(spec, FractureSpec):
        if expected.types is not None and actual.types is not None:
            least = min(point.doubt_below for point in spec.operating_points.values())
            not_negative = expected.probabilities[:, 0] >= least
            pairs = (
                expected.types.probabilities[not_negative].T,
                actual.types.probabilities[not_negative].T,
            )
            for trained, exported in zip(*pairs, strict=True):
                yield trained, exported, 0.5, margin
    elif spec.density and expected.density is not None and actual.density is not None:
        margin = DENSITY_TOLERANCE[spec.precision][1]
        for threshold in (spec.density.threshold, spec.density.far):
            yield expected.density, actual.density, threshold, margin


def _thresholds(spec: RegionSpec | FractureSpec, label: str) -> list[float]:
    if isinstance(spec, RegionSpec):
        return [spec.route_thresholds[label]]
    points = (*spec.operating_points.values(), *spec.study_points.values())
    return [point.threshold for point in points]


def _density_difference(expected: StageOutput, actual: StageOutput) -> float | None:
    """Largest |Δdensity|; None if the trained network has none."""
    if expected.density is None:
        return None
    if actual.density is None:
        return float("nan")
    return float(np.abs(expected.density - actual.density).max())


def gate(rows: Sequence[Parity]) -> None:
    """Check that every comparison passed.

    Raises:
        ExportRefusedError: A comparison failed; all failed ones are listed.
    """
    refused = [str(row) for row in rows if not row.passed]
    if refused:
        raise ExportRefusedError(
            "not exported, the weights folder is unchanged:\n  " + "\n  ".join(refused),
            "train longer, calibrate on more pictures (--set calibration_pictures=…), or omit the "
            "precision (--precision)",
        )
