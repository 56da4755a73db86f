"""Ensemble of networks: the mean of their calibrated probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..bundle import EnsembleSpec, FractureSpec
from ..domain import ANY_REGION, Array, StageOutput
from ..errors import BundleError
from .network import Batch, Network, Part


class Ensemble:
    """A :class:`~pipeline.runtime.network.Stage` of several networks.

    Members must predict the same target; all else may differ. Each uses its own preprocessing,
    and its own trunk or none.

    Args:
        mean: Bundle that averages the members' probabilities.
        available: Fracture bundles by name, including the members.

    Raises:
        BundleError: A member is missing, is not the file that the ensemble was made for, or
            predicts another target.
    """

    def __init__(
        self, mean: Network[EnsembleSpec], available: Mapping[str, Network[FractureSpec]]
    ) -> None:
        self.spec = mean.spec
        self._mean = mean
        self._members = tuple(_member(mean.spec, name, available) for name in mean.spec.members)
        specs = [member.spec for member in self._members]
        if self.spec.preprocess != specs[0].preprocess:
            raise BundleError(
                f"bundle {self.spec.name} needs a different preprocessing than {specs[0].name}"
            )
        reason = why_no_heatmap(specs)
        if self.spec.heatmap and reason:
            raise BundleError(f"bundle {self.spec.name} declares a heatmap, but {reason}")

    @property
    def networks(self) -> tuple[Part, ...]:
        """The mean, then the members."""
        return (self._mean, *self._members)

    def look(
        self, batch: Batch, rows: Sequence[int] | None = None, *, evidence: bool = False
    ) -> StageOutput:
        """See :meth:`pipeline.runtime.network.Stage.look`.

        The evidence is the mean of the members' contributions to the log odds, on the finest of
        their grids.
        """
        mapped = evidence and self.spec.heatmap
        answers = [member.look(batch, rows, evidence=mapped) for member in self._members]
        averaged = self._mean.predict(np.concatenate([a.probabilities for a in answers], axis=1))
        if not mapped:
            return averaged
        maps = [
            answer.evidence / np.float32(member.spec.temperature[0])
            for answer, member in zip(answers, self._members, strict=True)
            if answer.evidence is not None  # all have it: the constructor saw to that
        ]
        finest = max((part.shape[2:] for part in maps), key=math.prod)
        mean: Array = np.mean([onto_grid(part, finest) for part in maps], axis=0)
        return StageOutput(averaged.labels, averaged.logits, averaged.probabilities, mean)


def _member(
    spec: EnsembleSpec, name: str, available: Mapping[str, Network[FractureSpec]]
) -> Network[FractureSpec]:
    """Find a member of an ensemble and check it against the contract of the ensemble."""
    hint = "create the ensemble again with `fxpipe ensemble`"
    if name not in available:
        raise BundleError(
            f"bundle {spec.name}: its member {name} is not in the weights folder, which has "
            f"{', '.join(sorted(available))}",
            hint,
        )
    member = available[name]
    if member.digest != spec.members[name]:
        raise BundleError(
            f"bundle {spec.name} was created for a member {name} with sha256 "
            f"{spec.members[name][:12]}, found {member.digest[:12]}: its thresholds are not valid",
            hint,
        )
    if reason := why_not_together(spec, member.spec):
        raise BundleError(f"bundle {spec.name}: {reason}", hint)
    return member


def why_not_together(spec: EnsembleSpec, member: FractureSpec) -> str | None:
    """Reason why a fracture network cannot be a member of an ensemble; None if it can."""
    if member.region not in (spec.region, ANY_REGION):
        return f"{member.name} judges {member.region}, expected {spec.region} or {ANY_REGION}"
    if (member.target, member.labels) != (spec.target, spec.labels):
        return (
            f"{member.name} predicts {member.target} ({', '.join(member.labels)}), expected "
            f"{spec.target} ({', '.join(spec.labels)})"
        )
    return None


def why_no_heatmap(members: Sequence[FractureSpec]) -> str | None:
    """Reason why the maps of some networks cannot be combined; None if they can."""
    if unmapped := [member.name for member in members if not member.heatmap]:
        return f"{', '.join(unmapped)} has no evidence output"
    first = members[0].preprocess
    for member in members:
        canvas = member.preprocess
        same_aspect = first.height_px * canvas.width_px == first.width_px * canvas.height_px
        if canvas.fit is not first.fit or not same_aspect:
            return (
                f"{member.name} covers a different part of the picture than {members[0].name}: "
                f"{canvas.fit} to {canvas.height_px} x {canvas.width_px} px, and "
                f"{first.fit} to {first.height_px} x {first.width_px} px"
            )
    return None


def onto_grid(maps: Array, grid: tuple[int, ...]) -> Array:
    """Resample maps to another grid over the same area, bilinearly between cell centres.

    Beyond the outermost centres, the outermost value is repeated.

    Args:
        maps: (N, K, h, w) float32.
        grid: Rows and columns of the result.

    Returns:
        (N, K, rows, columns) float32.
    """
    vertical, horizontal = (_weights(*sizes) for sizes in zip(maps.shape[2:], grid, strict=True))
    resampled: Array = (vertical @ maps @ horizontal.T).astype(np.float32)
    return resampled


def _weights(cells: int, size: int) -> Array:
    """(size, cells) float32: interpolation weight of each old cell in each new one."""
    centres = (np.arange(size) + 0.5) * cells / size - 0.5
    one_hot = np.eye(cells)
    weights = [np.interp(centres, np.arange(cells), cell) for cell in one_hot]
    return np.stack(weights, axis=1).astype(np.float32)
