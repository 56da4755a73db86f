"""Rounding of weights to signed bytes, overflow-safe and optimised on real pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]

_LEVEL = 127
_PAIR_LIMIT = 128
"""Processors without VNNI multiply unsigned by signed bytes and add two neighbouring products in
sixteen bits, which saturate above 255 · 128 (PMADDUBSW in Intel's manual)."""
_DAMPING = 0.01
_BLOCK = 64
"""Columns whose errors are propagated together: one matrix product instead of many."""


def safe_step(weight: Weights) -> Weights:
    """The finest step of each output channel's weights at which no pair of products overflows.

    ONNX Runtime's ``reduce_range``, which halves every weight, is safe too but coarser: a large
    weight seldom has a large neighbour of the same sign.

    Args:
        weight: (O, I, height, width).

    Returns:
        (O,), above 0.
    """
    step = np.abs(weight).reshape(len(weight), -1).max(1) / _LEVEL
    for flat in _orders(weight):
        for sign in (1.0, -1.0):
            part = np.maximum(sign * flat, 0.0)
            pairs = (part[:, 1:] + part[:, :-1]).max(1, initial=0.0)
            # Half a step allows for the rounding of the two.
            step = np.maximum(step, pairs / (_PAIR_LIMIT - 0.5))
    return np.where(step > 0.0, step, 1.0)


def round_weights(weight: Weights, step: Weights, patches: Weights) -> NDArray[np.int8]:
    """Levels that minimise the output error on real patches.

    Column by column, the remaining weights compensate the rounding error of one weight (GPTQ,
    Frantar et al. 2022, arXiv 2210.17323). The covariance of the patches replaces their second
    moment, because the bias corrects a shift of the mean.

    Args:
        weight: (O, I, height, width).
        step: (O,) size of a level.
        patches: (P, I · height · width) inputs of the convolution from real pictures.

    Returns:
        Levels of the weight's shape, safe as in :func:`safe_step`.
    """
    # Transposed, so that a column of the weights is contiguous in memory.
    columns = np.ascontiguousarray((weight.reshape(len(weight), -1) / step[:, None]).T)
    levels = np.empty_like(columns)
    factor = _inverse_factor(patches)
    for start in range(0, len(columns), _BLOCK):
        stop = min(start + _BLOCK, len(columns))
        errors = np.empty((stop - start, len(weight)))
        for i in range(start, stop):
            levels[i] = np.clip(np.rint(columns[i]), -_LEVEL, _LEVEL)
            errors[i - start] = (columns[i] - levels[i]) / factor[i, i]
            columns[i + 1 : stop] -= factor[i, i + 1 : stop, None] * errors[i - start]
        columns[stop:] -= factor[start:stop, stop:].T @ errors
    return _made_safe(levels.T.reshape(weight.shape)).astype(np.int8)


def _inverse_factor(patches: Weights) -> Weights:
    """Upper Cholesky factor of the inverse covariance, damped to be positive definite."""
    covariance = np.cov(patches, rowvar=False).reshape(patches.shape[1], -1)
    damping = _DAMPING * float(np.diag(covariance).mean()) or 1.0
    inverse = np.linalg.inv(covariance + damping * np.eye(len(covariance)))
    return np.asarray(np.linalg.cholesky((inverse + inverse.T) / 2).T, np.float64)


def _made_safe(levels: Weights) -> Weights:
    """Reduce the larger of two neighbours by the excess of their sum."""
    safe = levels.copy()
    for axes in ((0, 1, 2, 3), (0, 2, 3, 1)):
        turned = np.ascontiguousarray(safe.transpose(axes))
        flat = turned.reshape(len(levels), -1)
        # A reduction never makes another pair exceed the limit: checking these is sufficient.
        for first in np.flatnonzero(_has_excess(flat)):
            pair = flat[:, first : first + 2]
            for sign in (1.0, -1.0):
                part = np.maximum(sign * pair, 0.0)
                excess = np.maximum(part.sum(1) - _PAIR_LIMIT, 0.0)
                pair[np.arange(len(pair)), part.argmax(1)] -= sign * excess
        safe = turned.transpose(np.argsort(axes))
    return safe


def _has_excess(flat: Weights) -> NDArray[np.bool_]:
    """Which pairs of neighbouring columns exceed the limit in any row, for either sign."""
    excess = np.zeros(flat.shape[1] - 1, np.bool_)
    for sign in (1.0, -1.0):
        part = np.maximum(sign * flat, 0.0)
        excess |= ((part[:, 1:] + part[:, :-1]) > _PAIR_LIMIT).any(0)
    return excess


def _orders(weight: Weights) -> tuple[Weights, Weights]:
    """(O, ·) rows in the channel layouts of kernels: (I, height, width), (height, width, I)."""
    return weight.reshape(len(weight), -1), weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)
