"""Several networks that answer as one: the mean of their calibrated probabilities."""

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

    Members may differ in everything but the question that they answer: each looks at the picture
    in its own preprocessing, through its own trunk or none.

    Args:
        mean: The bundle that takes the members' probabilities.
        there: Fracture bundles by name, its members among them.

    Raises:
        BundleError: A member is missing, is another file than the one for which the ensemble was
            made, or answers another question.
    """

    def __init__(
        self, mean: Network[EnsembleSpec], there: Mapping[str, Network[FractureSpec]]
    ) -> None:
        self.spec = mean.spec
        self._mean = mean
        self._members = tuple(_member(mean.spec, name, there) for name in mean.spec.members)
        specs = [member.spec for member in self._members]
        if self.spec.preprocess != specs[0].preprocess:
            raise BundleError(
                f"bundle {self.spec.name} wants other preprocessing than {specs[0].name}"
            )
        reason = why_no_heatmap(specs)
        if self.spec.heatmap and reason:
            raise BundleError(f"bundle {self.spec.name} promises a heatmap, but {reason}")

    @property
    def networks(self) -> tuple[Part, ...]:
        """The mean, then the members: all that have a part in the answer."""
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
        said = self._mean.predict(np.concatenate([a.probabilities for a in answers], axis=1))
        if not mapped:
            return said
        maps = [
            answer.evidence / np.float32(member.spec.temperature[0])
            for answer, member in zip(answers, self._members, strict=True)
            if answer.evidence is not None  # all have it: the constructor saw to that
        ]
        finest = max((part.shape[2:] for part in maps), key=math.prod)
        mean: Array = np.mean([onto_grid(part, finest) for part in maps], axis=0)
        return StageOutput(said.labels, said.logits, said.probabilities, mean)


def _member(
    spec: EnsembleSpec, name: str, there: Mapping[str, Network[FractureSpec]]
) -> Network[FractureSpec]:
    """One member of an ensemble, found and compared with its contract."""
    hint = "make the ensemble again: `fxpipe ensemble`"
    if name not in there:
        raise BundleError(
            f"bundle {spec.name}: its member {name} is not in the weights folder, which has "
            f"{', '.join(sorted(there))}",
            hint,
        )
    member = there[name]
    if member.digest != spec.members[name]:
        raise BundleError(
            f"bundle {spec.name} was made for a member {name} with sha256 "
            f"{spec.members[name][:12]}, found {member.digest[:12]}: its thresholds do not hold",
            hint,
        )
    if reason := why_not_together(spec, member.spec):
        raise BundleError(f"bundle {spec.name}: {reason}", hint)
    return member


def why_not_together(spec: EnsembleSpec, member: FractureSpec) -> str | None:
    """Why a fracture network cannot be a member of an ensemble; None when it can."""
    if member.region not in (spec.region, ANY_REGION):
        return f"{member.name} looks at {member.region}, wanted {spec.region} or {ANY_REGION}"
    if (member.target, member.labels) != (spec.target, spec.labels):
        return (
            f"{member.name} tells {member.target} ({', '.join(member.labels)}), wanted "
            f"{spec.target} ({', '.join(spec.labels)})"
        )
    return None


def why_no_heatmap(members: Sequence[FractureSpec]) -> str | None:
    """Why the maps of some networks cannot be laid on one another; None when they can."""
    if blind := [member.name for member in members if not member.heatmap]:
        return f"{', '.join(blind)} gives no evidence"
    first = members[0].preprocess
    for member in members:
        canvas = member.preprocess
        alike = first.height_px * canvas.width_px == first.width_px * canvas.height_px
        if canvas.fit is not first.fit or not alike:
            return (
                f"{member.name} sees another part of the picture than {members[0].name}: "
                f"{canvas.fit} to {canvas.height_px} x {canvas.width_px} px, and "
                f"{first.fit} to {first.height_px} x {first.width_px} px"
            )
    return None


def onto_grid(maps: Array, grid: tuple[int, ...]) -> Array:
    """Maps on another grid over the same area: bilinear between the centres of cells.

    Beyond the outermost centres the outermost value goes on.

    Args:
        maps: (N, K, h, w) float32.
        grid: Rows and columns that are wanted.

    Returns:
        (N, K, rows, columns) float32.
    """
    down, across = (_shares(*sizes) for sizes in zip(maps.shape[2:], grid, strict=True))
    resampled: Array = (down @ maps @ across.T).astype(np.float32)
    return resampled


def _shares(cells: int, wanted: int) -> Array:
    """(wanted, cells) float32: the share of each old cell in each new one."""
    centres = (np.arange(wanted) + 0.5) * cells / wanted - 0.5
    one_hot = np.eye(cells)
    shares = [np.interp(centres, np.arange(cells), cell) for cell in one_hot]
    return np.stack(shares, axis=1).astype(np.float32)
