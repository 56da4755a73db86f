"""Does the exported model decide as the trained one does? Measured on real pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.bundle import FractureSpec, FractureTypes, Precision, RegionSpec
from pipeline.domain import Array, StageOutput
from pipeline.errors import ExportRefusedError

from .calibrate import probabilities, type_probabilities
from .density import similarity
from .finished import Run

BATCH = 16

TOLERANCE = {
    Precision.FP32: (1e-3, 0.001),
    Precision.FP16: (0.1, 0.01),
    Precision.INT8: (2.0, 0.05),
}
"""Largest |Δlogit|, and the margin: a decision may differ from the trained network's only where
that network's probability is nearer than this to the threshold. The margin is the promise; the
largest |Δlogit| finds graphs that are broken. In eight bits it is reached by pictures of nothing
supported, whose logits lie far from every threshold: 1.45 in the first network that learned from
such pictures, beside 0.12 on average."""

DENSITY_TOLERANCE = {
    Precision.FP32: (1e-3, 1e-4),
    Precision.FP16: (0.02, 0.002),
    Precision.INT8: (0.1, 0.02),
}
"""Largest |Δdensity|, and the margin in density within which the density gate may decide otherwise
than the trained network. What int8 did to the trunk of the first shipped weights moved the density
of 60 pictures by 0.0035 on average and 0.017 at most."""


@dataclass(frozen=True, slots=True)
class Parity:
    """One exported stage against the trained network.

    Attributes:
        name, precision: The bundle.
        pictures: How many were compared.
        max_logit_difference, mean_logit_difference: |Δlogit| over pictures, labels and types.
        decisions: How many thresholds were applied in all.
        flips: Decisions that differ where the trained network is at least a margin from the
            threshold.
        near_flips: Decisions that differ nearer to it.
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
        """Whether the bundle may be shipped; what is no number never passes."""
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
    """What the trained network says, whole and uncut, in full precision.

    Args:
        run: Its density gate, if there is one, is computed as :func:`stages.density.similarity`.
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
    """What the trained network says of fracture types, from its (N, T) other logits."""
    told = run.result.get("types")
    if told is None:
        return None
    types = FractureTypes.model_validate(told)
    return StageOutput(types.labels, logits, type_probabilities(types, logits))


def compare(spec: RegionSpec | FractureSpec, wanted: StageOutput, found: StageOutput) -> Parity:
    """Compare an exported stage with the trained network.

    Args:
        spec: Of the exported stage: its thresholds are the decisions.
        wanted: What the trained network says of N pictures.
        found: What the exported stage says of them.
    """
    tolerance, margin = TOLERANCE[spec.precision]
    flips = near = decisions = 0
    for trained, value, threshold, allowed in _decisions(spec, wanted, found):
        differ = (trained >= threshold) != (value >= threshold)
        close = np.abs(trained - threshold) < allowed
        flips += int((differ & ~close).sum())
        near += int((differ & close).sum())
        decisions += len(value)
    difference = np.abs(_logits(wanted) - _logits(found))
    return Parity(
        name=spec.name,
        precision=spec.precision,
        pictures=len(wanted),
        max_logit_difference=float(difference.max()),
        mean_logit_difference=float(difference.mean()),
        decisions=decisions,
        flips=flips,
        near_flips=near,
        margin=margin,
        tolerance=tolerance,
        max_density_difference=_density_difference(wanted, found),
    )


def _logits(said: StageOutput) -> Array:
    """(N, K + T) of labels and types."""
    return said.logits if said.types is None else np.hstack([said.logits, said.types.logits])


def _decisions(
    spec: RegionSpec | FractureSpec, wanted: StageOutput, found: StageOutput
) -> Iterator[tuple[Array, Array, float, float]]:
    """What both say of every decision, its threshold, and the margin around it.

    A type of fracture counts as decided from one half on, where the picture is not negative at
    every operating point.
    """
    margin = TOLERANCE[spec.precision][1]
    for k, label in enumerate(spec.labels):
        for threshold in _thresholds(spec, label):
            yield wanted.probabilities[:, k], found.probabilities[:, k], threshold, margin
    if isinstance(spec, FractureSpec):
        if wanted.types is not None and found.types is not None:
            least = min(point.doubt_below for point in spec.operating_points.values())
            told = wanted.probabilities[:, 0] >= least
            pairs = wanted.types.probabilities[told].T, found.types.probabilities[told].T
            for trained, exported in zip(*pairs, strict=True):
                yield trained, exported, 0.5, margin
    elif spec.density and wanted.density is not None and found.density is not None:
        margin = DENSITY_TOLERANCE[spec.precision][1]
        for threshold in (spec.density.threshold, spec.density.far):
            yield wanted.density, found.density, threshold, margin


def _thresholds(spec: RegionSpec | FractureSpec, label: str) -> list[float]:
    if isinstance(spec, RegionSpec):
        return [spec.route_thresholds[label]]
    points = (*spec.operating_points.values(), *spec.study_points.values())
    return [point.threshold for point in points]


def _density_difference(wanted: StageOutput, found: StageOutput) -> float | None:
    """Largest |Δdensity|; None where the trained network has none."""
    if wanted.density is None:
        return None
    if found.density is None:
        return float("nan")
    return float(np.abs(wanted.density - found.density).max())


def gate(rows: Sequence[Parity]) -> None:
    """Let nothing through that differs.

    Raises:
        ExportRefusedError: With every row that did not pass.
    """
    refused = [str(row) for row in rows if not row.passed]
    if refused:
        raise ExportRefusedError(
            "not exported, the weights folder is unchanged:\n  " + "\n  ".join(refused),
            "train longer, calibrate on more pictures (--set calibration_pictures=…), or leave "
            "the precision out (--precision)",
        )
