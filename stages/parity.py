"""Does the exported model decide as the trained one does? Measured on real pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.bundle import BundleSpec, Kind, Precision
from pipeline.domain import Array
from pipeline.errors import ExportRefusedError

from .model import Network

BATCH = 16

TOLERANCE = {
    Precision.FP32: (1e-3, 0.001),
    Precision.FP16: (0.1, 0.01),
    Precision.INT8: (1.0, 0.05),
}
"""Largest |Δlogit|, and the margin: a decision may differ from the trained network's only where
that network's probability is nearer than this to the threshold."""


@dataclass(frozen=True, slots=True)
class Parity:
    """One exported stage against the trained network.

    Attributes:
        name, precision: The bundle.
        pictures: How many were compared.
        max_logit_difference, mean_logit_difference: |Δlogit| over pictures and labels.
        decisions: How many thresholds were applied in all.
        flips: Decisions that differ where the trained network is at least ``margin`` from the
            threshold.
        near_flips: Decisions that differ nearer to it.
        margin: In calibrated probability.
        tolerance: Largest |Δlogit| allowed.
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

    @property
    def passed(self) -> bool:
        """Whether the bundle may be shipped."""
        return self.flips == 0 and self.max_logit_difference <= self.tolerance

    def __str__(self) -> str:
        return (
            f"{self.name} {self.precision}: {self.pictures} pictures, "
            f"|Δlogit| max {self.max_logit_difference:.4f} (limit {self.tolerance}) "
            f"mean {self.mean_logit_difference:.4f}; {self.decisions} decisions, "
            f"{self.flips} flips outside the margin of {self.margin}, "
            f"{self.near_flips} inside: {'passed' if self.passed else 'REFUSED'}"
        )


@torch.inference_mode()
def reference_logits(network: Network, images: Array, columns: Sequence[int]) -> Array:
    """(N, K) float32 logits of the trained network, whole and uncut, in full precision."""
    network.eval()
    parts = [network(torch.from_numpy(images[i : i + BATCH])) for i in range(0, len(images), BATCH)]
    return torch.cat(parts).float().numpy()[:, list(columns)]


def compare(
    spec: BundleSpec, reference: Array, reference_p: Array, logits: Array, p: Array
) -> Parity:
    """Compare an exported stage with the trained network.

    Args:
        spec: Of the exported stage: its thresholds are the decisions.
        reference: (N, K) logits of the trained network.
        reference_p: (N, K) its calibrated probabilities.
        logits: (N, K) of the exported stage.
        p: (N, K) its calibrated probabilities.
    """
    tolerance, margin = TOLERANCE[spec.precision]
    if spec.kind is Kind.REGION:
        thresholds = [[spec.route_thresholds[label]] for label in spec.labels]
    else:
        points = (*spec.operating_points.values(), *spec.study_points.values())
        thresholds = [[point.threshold for point in points]]
    flips = near = decisions = 0
    for k, values in enumerate(thresholds):
        for threshold in values:
            differ = (reference_p[:, k] >= threshold) != (p[:, k] >= threshold)
            close = np.abs(reference_p[:, k] - threshold) < margin
            flips += int((differ & ~close).sum())
            near += int((differ & close).sum())
            decisions += len(p)
    difference = np.abs(reference - logits)
    return Parity(
        name=spec.name,
        precision=spec.precision,
        pictures=len(reference),
        max_logit_difference=float(difference.max()),
        mean_logit_difference=float(difference.mean()),
        decisions=decisions,
        flips=flips,
        near_flips=near,
        margin=margin,
        tolerance=tolerance,
    )


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
