"""Types of pictures and of stage outputs: immutable, and validated on construction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .regions import ANY_REGION as ANY_REGION
from .regions import REGIONS as REGIONS
from .source import Source

Array = NDArray[np.float32]


def check(condition: bool, message: str) -> None:
    """Raise ValueError with this message unless the condition is true."""
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Reference to one image of a source.

    Attributes:
        path: The file; None for content in memory.
        frame: Zero-based frame of a multi-frame file; None for a single image.
        sha256: Hex digest of the whole file; None when it could not be read.
        name: Name in messages and reports; by default the file's name without its folder.
    """

    path: Path | None
    frame: int | None = None
    sha256: str | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            if self.path is None:
                raise ValueError("found neither a path nor a name, expected one of them")
            object.__setattr__(self, "name", self.path.name)

    @classmethod
    def of(cls, source: Source, frame: int | None = None, sha256: str | None = None) -> ImageRef:
        """The reference to an image of a source.

        Args:
            source: The file, or its content in memory.
            frame: See :class:`ImageRef`.
            sha256: See :class:`ImageRef`.
        """
        return cls(source if isinstance(source, Path) else None, frame, sha256, source.name)


@dataclass(frozen=True, slots=True)
class XrayImage:
    """One radiograph, ready for preprocessing.

    Attributes:
        pixels: (H, W) float32 in [0, 1], bone bright; resampled to square pixels if necessary.
        source: The file (and frame) that it was read from.
        bit_depth: Bits stored for each pixel in the source.
        spacing_mm: (row, column) distance of pixel centres at the detector, or None.
        dicom: Header values that the pipeline uses (never identifiers), or None.
        identity: Identifiers of patient, study, series and instance by DICOM keyword, or None.
        flags: Corrections that were made during reading, which may be wrong.
        colour: Share of the picture that is clearly coloured, in [0, 1].
    """

    pixels: Array
    source: ImageRef
    bit_depth: int
    spacing_mm: tuple[float, float] | None = None
    dicom: Mapping[str, str] | None = None
    identity: Mapping[str, str] | None = field(default=None, repr=False)
    flags: tuple[Flag, ...] = ()
    colour: float = 0.0

    def __post_init__(self) -> None:
        check(
            self.pixels.ndim == 2 and self.pixels.dtype == np.float32,
            f"pixels are {self.pixels.dtype} {self.pixels.shape}, expected float32 (H, W)",
        )
        check(
            min(self.pixels.shape) > 0, f"pixels are {self.pixels.shape}, expected at least 1 x 1"
        )
        low, high = float(self.pixels.min()), float(self.pixels.max())
        check(low >= 0.0 and high <= 1.0, f"pixels span [{low}, {high}], expected [0, 1]")


@dataclass(frozen=True, slots=True)
class Flag:
    """A doubt about one picture that affects how far its verdict can be trusted.

    Attributes:
        name: One of :data:`pipeline.flags.NAMES`.
        reason: What was found, as a sentence for the reader of the picture.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """A picture as a viewer shows it, for reports: upright, windowed, bone bright.

    Attributes:
        pixels: (H, W) uint8.
        reduction: Source px per pixel, an integer; above 1 only for very large pictures.
    """

    pixels: NDArray[np.uint8]
    reduction: int = 1

    def __post_init__(self) -> None:
        check(
            self.pixels.ndim == 2 and self.pixels.dtype == np.uint8,
            f"pixels are {self.pixels.dtype} {self.pixels.shape}, expected uint8 (H, W)",
        )


@dataclass(frozen=True, slots=True)
class Placement:
    """Position of the source picture on the model's canvas.

    Attributes:
        scale_y, scale_x: Canvas px per source px.
        top_px, left_px: Canvas position of the source's top left corner (negative when cropped).
        source_shape: (H, W) of the source in px.
        framed: Whether the limb was found; otherwise the canvas shows the whole picture.
    """

    scale_y: float
    scale_x: float
    top_px: float
    left_px: float
    source_shape: tuple[int, int]
    framed: bool = False

    def to_canvas(self, y_px: float, x_px: float) -> tuple[float, float]:
        """Map a source point (y, x) in px to the canvas."""
        return y_px * self.scale_y + self.top_px, x_px * self.scale_x + self.left_px

    def to_source(self, y_px: float, x_px: float) -> tuple[float, float]:
        """Map a canvas point (y, x) in px back to the source."""
        return (y_px - self.top_px) / self.scale_y, (x_px - self.left_px) / self.scale_x


@dataclass(frozen=True, slots=True, eq=False)
class Heatmap:
    """Location of a specialist's evidence in a picture.

    Attributes:
        cells: (h, w) float32 in [0, 1], covering the canvas: the evidence for the finding relative
            to its maximum; 0 where the evidence is absent, negative or outside the limb.
        canvas_px: Height and width of the model's canvas.
        placement: Position of the picture on the canvas.
        hidden: Share in [0, 1] of all evidence for the finding that is outside the limb.
    """

    cells: Array
    canvas_px: tuple[int, int]
    placement: Placement
    hidden: float = 0.0

    def __post_init__(self) -> None:
        check(
            self.cells.ndim == 2 and self.cells.dtype == np.float32,
            f"cells are {self.cells.dtype} {self.cells.shape}, expected float32 (h, w)",
        )
        check(0.0 <= self.hidden <= 1.0, f"hidden is {self.hidden}, expected a number in [0, 1]")


@dataclass(frozen=True, slots=True)
class StageOutput:
    """Output of one stage for a batch of N pictures and K labels.

    Attributes:
        labels: K names, one for each column.
        logits: (N, K) float32, uncalibrated.
        probabilities: (N, K) float32 in [0, 1], calibrated; labels are independent.
        evidence: (N, K, h, w) float32 or None. For a network, its mean over h and w plus the bias
            is the logit; for an ensemble, it is the mean of its members' evidence / temperature.
        density: (N,) float32 or None. For a region stage with a density gate, the similarity to
            the nearest training pictures; see :class:`pipeline.bundle.Density`.
        types: Output for fracture types, one column per type; None for a stage without types; see
            :class:`pipeline.bundle.FractureTypes`.
    """

    labels: tuple[str, ...]
    logits: Array
    probabilities: Array
    evidence: Array | None = None
    density: Array | None = None
    types: StageOutput | None = None

    def __post_init__(self) -> None:
        expected = (self.logits.shape[0], len(self.labels))
        for name in ("logits", "probabilities"):
            shape = getattr(self, name).shape
            check(
                shape == expected,
                f"{name} are {shape}, expected {expected} for labels {self.labels}",
            )
        if self.evidence is not None:
            shape = self.evidence.shape
            check(shape[:2] == expected, f"evidence is {shape}, expected {expected} + (h, w)")
        if self.density is not None:
            shape = self.density.shape
            check(shape == expected[:1], f"density is {shape}, expected {expected[:1]}")
        if self.types is not None:
            check(len(self.types) == len(self), f"types of {len(self.types)} pictures")

    def __len__(self) -> int:
        return int(self.logits.shape[0])
