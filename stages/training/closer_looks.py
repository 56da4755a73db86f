"""Closer looks of a specialist at parts of the limb, and their combination with the first look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.bundle import CloserLooks
from pipeline.domain import Array
from pipeline.looks import part, places
from pipeline.preprocess import PreprocessSpec

from ..data.dataset import RadiographDataset, batches, read_array
from ..network.model import Network
from ..settings import CloserConfig
from ..statistics.calibration import operating_points
from ..statistics.metrics import Labels
from ..statistics.study_thresholds import fit_study_points

PRIOR_SD = (0.7, 0.5)
"""Prior standard deviations of the logarithm of each weight and of the bias."""


def closer_canvas(canvas: PreprocessSpec, config: CloserConfig) -> PreprocessSpec:
    """The canvas from which parts are cropped: that of the first look, magnified."""
    height, width = (
        round(side * config.magnification) for side in (canvas.height_px, canvas.width_px)
    )
    return canvas.model_copy(update={"height_px": height, "width_px": width})


class _Pairs(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Each picture on the canvas of the first look and on that of the closer looks."""

    def __init__(self, data: RadiographDataset, canvas: PreprocessSpec) -> None:
        self._data, self._canvas = data, canvas

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        spec, sample = self._data.spec, self._data.samples[i]
        if self._data.sources is None:
            first, larger = read_array(sample, spec), read_array(sample, self._canvas)
        else:  # one view for both: the smaller canvas is resized from the larger
            larger = self._data.sources.view(sample, self._canvas, i).canvas
            picture = Image.fromarray(larger[0])
            size = spec.width_px, spec.height_px
            first = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))[None].copy()
        return torch.from_numpy(first), torch.from_numpy(larger), torch.zeros(0)


@torch.inference_mode()
def look_closer(
    network: Network, data: RadiographDataset, canvas: PreprocessSpec, count: int, workers: int,
    fabric: Fabric,
) -> tuple[Array, Array]:  # fmt: skip
    """Apply a network to pictures as :class:`pipeline.runtime.closer_looks.Closer` does.

    Args:
        network: A fracture network with a heatmap; its first output decides.
        data: The pictures.
        canvas: See :func:`closer_canvas`.
        count: Number of parts.
        workers: Number of reading processes.
        fabric: Device and precision.

    Returns:
        (N, K) float32 logits of the first looks, and (N,) the highest of the closer looks.
    """
    network.eval()
    spec = data.spec
    firsts, highest = [], []
    for first, larger, _ in batches(_Pairs(data, canvas), 8, workers):
        logits, maps = _forward(network, first, fabric)
        parts = [
            part(array, place, spec)
            for array, evidence in zip(larger.numpy(), maps, strict=True)
            for place in places(evidence[0], count, canvas, spec)
        ]
        closer, _ = _forward(network, torch.from_numpy(np.stack(parts)), fabric)
        firsts.append(logits)
        highest.append(closer[:, 0].reshape(-1, count).max(1))
    return np.concatenate(firsts), np.concatenate(highest)


def _forward(network: Network, images: Tensor, fabric: Fabric) -> tuple[Array, Array]:
    """Logits and evidence of a batch."""
    images = images.to(fabric.device).contiguous(memory_format=torch.channels_last)
    with fabric.autocast():
        logits, evidence = network.answer(network.prefix(images))
    assert evidence is not None  # noqa: S101  (only networks with a heatmap are passed)
    return logits.float().cpu().numpy(), evidence.float().cpu().numpy()


@dataclass(frozen=True, slots=True)
class Weighing:
    """Weights of the looks: see :class:`pipeline.bundle.CloserLooks`."""

    whole: float
    close: float
    bias: float

    def probabilities(self, first: Array, highest: Array) -> Array:
        """(N,) calibrated probability from all looks."""
        return np.asarray(expit(self.whole * first + self.close * highest + self.bias), np.float32)


def fit_weighing(labels: Labels, first: Array, highest: Array) -> Weighing:
    """Logistic regression with non-negative weights and a normal prior.

    The prior, centred on a weight of one half for each look, limits the influence of few cases.

    Args:
        labels: (N,) 0, 1 or NaN.
        first: (N,) logits of the first looks.
        highest: (N,) highest logits of the closer looks.
    """
    known = ~np.isnan(labels)
    targets = labels[known].astype(float)
    looks = np.stack([first[known], highest[known]], 1).astype(float)
    if len(np.unique(targets)) < 2:
        return Weighing(0.5, 0.5, 0.0)

    def loss(parameters: np.ndarray) -> float:
        z = looks @ (0.5 * np.exp(parameters[:2])) + parameters[2]
        fit = np.logaddexp(0.0, z) - targets * z
        weights, bias = parameters[:2] / PRIOR_SD[0], parameters[2] / PRIOR_SD[1]
        return float(fit.sum() + (np.square(weights).sum() + bias**2) / 2)

    whole, close, bias = minimize(loss, np.zeros(3), method="Nelder-Mead").x
    return Weighing(float(0.5 * np.exp(whole)), float(0.5 * np.exp(close)), float(bias))


def closer_contract(
    weighing: Weighing, canvas: PreprocessSpec, count: int, labels: Labels, scores: Array,
    studies: NDArray[np.str_], plain: NDArray[np.bool_],
) -> Mapping[str, Any]:  # fmt: skip
    """The contract of closer looks, as JSON for ``result.json``.

    Args:
        weighing: Weights of the looks.
        canvas: Canvas from which parts are cropped.
        count: Number of parts.
        labels: (N,) 0 or 1, of the validation pictures.
        scores: (N,) probabilities from all looks.
        studies: (N,) study of each picture, or an empty string.
        plain: (N,) which rows are unaugmented; the others are further views of them.
    """
    contract = CloserLooks(
        canvas=canvas,
        count=count,
        whole=weighing.whole,
        close=weighing.close,
        bias=weighing.bias,
        operating_points=operating_points(labels, scores, plain=plain),
        study_points=fit_study_points(studies, labels, scores, plain=plain).points,
    )
    return contract.model_dump(mode="json")
