"""What a specialist says of the whole limb and of its closer parts, and how it decides on both."""

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

from .calibrate import operating_points
from .config import CloserConfig
from .data.dataset import RadiographDataset, batches, read_array
from .metrics import Labels
from .model import Network
from .studies import fit_study_points

PRIOR_SD = (0.7, 0.5)
"""Standard deviation of the logarithm of each weight and of the bias before any data is seen."""


def closer_canvas(own: PreprocessSpec, config: CloserConfig) -> PreprocessSpec:
    """The canvas from which parts are cut: that of the first look, magnified."""
    height, width = (round(side * config.magnification) for side in (own.height_px, own.width_px))
    return own.model_copy(update={"height_px": height, "width_px": width})


class _Pairs(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Each picture at the canvas of the first look and at that of the closer ones."""

    def __init__(self, data: RadiographDataset, canvas: PreprocessSpec) -> None:
        self._data, self._canvas = data, canvas

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        own, sample = self._data.spec, self._data.samples[i]
        if self._data.sources is None:
            first, larger = read_array(sample, own), read_array(sample, self._canvas)
        else:  # one draw for both: the smaller one is made of the larger
            larger = self._data.sources.view(sample, self._canvas, i).canvas
            picture = Image.fromarray(larger[0])
            size = own.width_px, own.height_px
            first = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))[None].copy()
        return torch.from_numpy(first), torch.from_numpy(larger), torch.zeros(0)


@torch.inference_mode()
def look_closer(
    network: Network, data: RadiographDataset, canvas: PreprocessSpec, count: int, workers: int,
    fabric: Fabric,
) -> tuple[Array, Array]:  # fmt: skip
    """Ask a network about pictures as :class:`pipeline.runtime.closer.Closer` does.

    Args:
        network: A fracture network with a heatmap; its first output decides.
        data: The pictures.
        canvas: See :func:`closer_canvas`.
        count: How many parts.
        workers: Processes that read ahead.
        fabric: Device and precision.

    Returns:
        (N, K) float32 logits of the first looks, and (N,) the highest of the closer ones.
    """
    network.eval()
    own = data.spec
    firsts, highest = [], []
    for first, larger, _ in batches(_Pairs(data, canvas), 8, workers):
        logits, maps = _ask(network, first, fabric)
        parts = [
            part(array, place, own)
            for array, evidence in zip(larger.numpy(), maps, strict=True)
            for place in places(evidence[0], count, canvas, own)
        ]
        near, _ = _ask(network, torch.from_numpy(np.stack(parts)), fabric)
        firsts.append(logits)
        highest.append(near[:, 0].reshape(-1, count).max(1))
    return np.concatenate(firsts), np.concatenate(highest)


def _ask(network: Network, images: Tensor, fabric: Fabric) -> tuple[Array, Array]:
    """Logits and evidence of a batch."""
    images = images.to(fabric.device).contiguous(memory_format=torch.channels_last)
    with fabric.autocast():
        logits, evidence = network.answer(network.prefix(images))
    assert evidence is not None  # noqa: S101  (asked only of networks with a heatmap)
    return logits.float().cpu().numpy(), evidence.float().cpu().numpy()


@dataclass(frozen=True, slots=True)
class Weighing:
    """How the looks count: see :class:`pipeline.bundle.CloserLooks`."""

    whole: float
    close: float
    bias: float

    def probabilities(self, first: Array, highest: Array) -> Array:
        """(N,) calibrated probability of all looks together."""
        return np.asarray(expit(self.whole * first + self.close * highest + self.bias), np.float32)


def fit_weighing(labels: Labels, first: Array, highest: Array) -> Weighing:
    """Logistic regression with weights that are not negative, and a normal prior.

    The prior keeps a handful of cases from driving the weights anywhere; before any data both
    looks count a half.

    Args:
        labels: (N,) 0, 1 or NaN.
        first: (N,) logits of the first looks.
        highest: (N,) of the closer ones.
    """
    known = ~np.isnan(labels)
    wanted = labels[known].astype(float)
    looks = np.stack([first[known], highest[known]], 1).astype(float)
    if len(np.unique(wanted)) < 2:
        return Weighing(0.5, 0.5, 0.0)

    def loss(parameters: np.ndarray) -> float:
        z = looks @ (0.5 * np.exp(parameters[:2])) + parameters[2]
        fit = np.logaddexp(0.0, z) - wanted * z
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
        weighing: How looks count.
        canvas: From which parts are cut.
        count: How many parts.
        labels: (N,) 0 or 1, of the validation pictures.
        scores: (N,) probabilities of all looks together.
        studies: (N,) study of each, or an empty text.
        plain: (N,) which are as they are; the others are further views of them.
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
