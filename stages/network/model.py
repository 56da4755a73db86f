"""The network: a timm backbone with one linear layer, and its cut into trunk and head."""

from __future__ import annotations

import difflib
import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import timm
import torch
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn

from pipeline.errors import ConfigError

from ..settings import RESNET50
from . import architectures  # noqa: F401  (registers them with timm)

StrideOn = Literal["conv1", "conv2"]
STEM = ("conv1", "bn1", "act1", "maxpool")


def make_backbone(arch: str, canvas_px: tuple[int, int], pretrained: bool = False) -> nn.Module:
    """Make a timm model without pooling and classifier.

    Args:
        arch: timm's name, or one of :mod:`stages.network.architectures`.
        canvas_px: (H, W) of the pictures; used only by networks of a fixed input size.
        pretrained: Whether to download timm's weights.

    Raises:
        ConfigError: timm has no such model, or it does not support that size.
    """
    if not timm.is_model(arch.split(".")[0]):
        near = difflib.get_close_matches(arch, timm.list_models(), 5)
        hint = f"did you mean {', '.join(near)}?" if near else "see timm.list_models()"
        raise ConfigError(f"train.arch: timm has no model {arch!r}", hint)
    options: dict[str, Any] = {"num_classes": 0, "global_pool": ""}
    cfg = timm.get_pretrained_cfg(arch)
    if cfg is not None and cfg.fixed_input_size:
        options["img_size"] = canvas_px
    try:
        backbone: nn.Module = timm.create_model(arch, pretrained=pretrained, **options)
    except (AssertionError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(
            f"train.arch: {arch} cannot be built for pictures of "
            f"{canvas_px[0]} x {canvas_px[1]} px: {error}"
        ) from error
    return backbone


def blocks_of(backbone: nn.Module) -> tuple[str, ...]:
    """Blocks at which a network can be cut, first to last; only ``stem`` if it cannot be cut."""
    if not isinstance(backbone, ResNet):
        return ("stem",)
    layers = {f"layer{i}": backbone.get_submodule(f"layer{i}") for i in range(1, 5)}
    return (
        "stem",
        *(f"{name}.{i}" for name, layer in layers.items() for i, _ in enumerate(layer.children())),
    )


class Grid(nn.Module):
    """Converts the output of a backbone to a feature map (N, C, h, w) or a vector (N, C).

    Args:
        backbone: Backbone without pooling and classifier.
        canvas_px: (H, W) of the pictures.

    Attributes:
        features: C.
        shape: (h, w), or None for a vector.
    """

    def __init__(self, backbone: nn.Module, canvas_px: tuple[int, int]) -> None:
        super().__init__()
        was_training = backbone.training
        with torch.no_grad():
            output = backbone.eval()(torch.zeros(1, 3, *canvas_px))
        backbone.train(was_training)
        self.channels_last = output.ndim == 4 and getattr(backbone, "output_fmt", "NCHW") == "NHWC"
        self.tokens = output.ndim == 3
        self.skipped = 0
        self.shape: tuple[int, int] | None = None
        if self.tokens:
            self.shape = _token_grid(backbone, output.shape[1], canvas_px)
            self.skipped = output.shape[1] - self.shape[0] * self.shape[1]
        elif output.ndim == 4:
            height, width = output.shape[1:3] if self.channels_last else output.shape[2:]
            self.shape = (int(height), int(width))
        self.features = int(
            output.shape[-1] if self.channels_last or self.tokens else output.shape[1]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Move the channels to the second axis, before the spatial axes."""
        if self.channels_last:
            return x.permute(0, 3, 1, 2)
        if self.tokens and self.shape is not None:
            maps = x[:, self.skipped :].transpose(1, 2)
            # len(x) would be exported as a constant.
            return maps.reshape(maps.shape[0], maps.shape[1], *self.shape)
        return x


def _token_grid(backbone: nn.Module, tokens: int, canvas_px: tuple[int, int]) -> tuple[int, int]:
    """(h, w) of the patches: from the network, or from the aspect ratio of the canvas.

    Raises:
        ConfigError: The patches do not form a grid.
    """
    known = getattr(getattr(backbone, "patch_embed", None), "grid_size", None)
    if known is not None and known[0] * known[1] <= tokens:  # the others are class tokens
        return int(known[0]), int(known[1])
    patches = tokens - getattr(backbone, "num_prefix_tokens", 0)
    height = max(round((patches * canvas_px[0] / canvas_px[1]) ** 0.5), 1)
    if patches % height:
        raise ConfigError(
            f"train.arch: {type(backbone).__name__} gives {patches} patches that do not form a grid"
        )
    return height, patches // height


class Normalise(nn.Module):
    """(N, 1, H, W) in [0, 1] → (N, 3, H, W), normalised for the backbone's weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Repeat the grey channel and standardise it."""
        return (images - self.mean) / self.std


class Network(nn.Module):
    """A backbone with K outputs; its first blocks may be frozen.

    The decision is linear in the mean of the last feature map, if there is one, so every backbone
    with a feature map has a heatmap, independently of its original classifier.

    Args:
        labels: Names of the K outputs.
        stride_on: Convolution of a down-sampling bottleneck with the stride: ``conv1`` in the
            original ResNet (He et al. 2015, arXiv 1512.03385), ``conv2`` in torchvision and timm.
        trainable_from: First trainable block; a network that cannot be cut is trained as a whole.
        dropout: Dropout rate before the linear layer.
        arch: See :func:`make_backbone`.
        canvas_px: See :func:`make_backbone`.

    Raises:
        ConfigError: The backbone or the block does not exist.
    """

    def __init__(
        self,
        labels: Sequence[str],
        stride_on: StrideOn,
        trainable_from: str,
        dropout: float = 0.0,
        arch: str = RESNET50,
        canvas_px: tuple[int, int] = (224, 224),
    ) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.arch = arch
        self.stride_on = stride_on
        self.backbone = make_backbone(arch, canvas_px)
        self.blocks = blocks_of(self.backbone)
        cfg: Any = getattr(self.backbone, "pretrained_cfg", {})
        self.normalise = Normalise(cfg["mean"], cfg["std"])
        if stride_on == "conv1":
            _stride_on_first(self.backbone, arch)
        self.trainable_from = self.place(trainable_from)
        self.grid = Grid(self.backbone, canvas_px)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.grid.features, len(self.labels))
        for block in self._frozen():
            block.requires_grad_(False)

    @property
    def heatmap(self) -> bool:
        """Whether the decision is linear in a map of more than one cell."""
        return self.grid.shape is not None and self.grid.shape != (1, 1)

    def place(self, cut: str) -> str:
        """The block that a cut names: ``layer4`` means its first block.

        A network that cannot be cut has a single place, its start.

        Raises:
            ConfigError: The network does not have this block.
        """
        if len(self.blocks) == 1:
            return self.blocks[0]
        for name in (cut, f"{cut}.0"):
            if name in self.blocks:
                return name
        raise ConfigError(
            f"{self.arch} has no block {cut!r}, expected one of {', '.join(self.blocks)}"
        )

    def position(self, cut: str) -> int:
        """Number of blocks before a cut."""
        return self.blocks.index(self.place(cut))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, H, W) float32 in [0, 1] → (N, K) logits."""
        return self.answer(self.prefix(images))[0]

    def prefix(self, images: Tensor) -> Tensor:
        """Feature maps (N, C, h, w) of the frozen blocks for (N, 1, H, W) pictures in [0, 1]."""
        frozen = self.blocks[: self.position(self.trainable_from)]
        return self._through(frozen, self.normalise(images))

    def answer(self, maps: Tensor) -> tuple[Tensor, Tensor | None]:
        """Apply the trainable blocks and the linear layer.

        Args:
            maps: Result of :meth:`prefix`.

        Returns:
            Logits (N, K), and evidence (N, K, h, w) as
            :class:`stages.export.exported_head.Head` describes it; None without a heatmap.
        """
        learning = self.blocks[self.position(self.trainable_from) :]
        maps = self.grid(self._through(learning, maps))
        logits: Tensor = self.fc(self.dropout(pooled(maps)))
        return logits, evidence_of(maps, self.fc) if self.heatmap else None

    def depths(self, images: Tensor, cut: str) -> Tensor:
        """Features of (N, 1, H, W) pictures in [0, 1] for a density gate.

        Args:
            images: Pictures.
            cut: First block of the head.

        Returns:
            (N, F) float32: see :func:`pooled_depths`.
        """
        start = self.position(cut)
        taken = self._through(self.blocks[:start], self.normalise(images))
        last = self.grid(self._through(self.blocks[start:], taken))
        return pooled_depths(taken if start else None, last)

    def _through(self, blocks: Sequence[str], maps: Tensor) -> Tensor:
        for name in blocks:
            for module in block_modules(self.backbone, name).values():
                maps = module(maps)
        return maps

    def train(self, mode: bool = True) -> Network:
        """Switch the mode, except for the frozen blocks: their batch-norm statistics stay fixed."""
        super().train(mode)
        for block in self._frozen():
            block.eval()
        return self

    def _frozen(self) -> Iterator[nn.Module]:
        for name in self.blocks[: self.position(self.trainable_from)]:
            yield from block_modules(self.backbone, name).values()


def _stride_on_first(backbone: nn.Module, arch: str) -> None:
    """Move the stride of the down-sampling bottlenecks to their first convolution."""
    if not isinstance(backbone, ResNet) or not isinstance(
        backbone.get_submodule("layer2.0"), Bottleneck
    ):
        raise ConfigError(f"model.stride_on is conv1, but {arch} has no bottleneck blocks")
    for layer in ("layer2", "layer3", "layer4"):
        block = backbone.get_submodule(f"{layer}.0")
        for name, stride in (("conv1", (2, 2)), ("conv2", (1, 1))):
            convolution = block.get_submodule(name)
            assert isinstance(convolution, nn.Conv2d)  # noqa: S101  (for mypy)
            convolution.stride = stride


def pooled(maps: Tensor) -> Tensor:
    """(N, C, h, w) → mean (N, C); a vector stays unchanged."""
    return maps.mean((2, 3)) if maps.ndim == 4 else maps


def pooled_depths(taken: Tensor | None, last: Tensor) -> Tensor:
    """(N, F) float32: means of the map at the cut, if any, and of the last map."""
    return torch.cat([pooled(maps.float()) for maps in (taken, last) if maps is not None], 1)


def evidence_of(maps: Tensor, fc: nn.Linear) -> Tensor:
    """(N, C, h, w) → (N, K, h, w), whose mean over h and w plus the layer's bias is the logit."""
    return nn.functional.conv2d(maps, fc.weight[:, :, None, None])


def block_modules(backbone: nn.Module, name: str) -> OrderedDict[str, nn.Module]:
    """The modules of a block by name, in order: one, except for a ResNet's stem."""
    if not isinstance(backbone, ResNet):
        return OrderedDict(backbone=backbone)
    names = STEM if name == "stem" else (name,)
    return OrderedDict((n, backbone.get_submodule(n)) for n in names)


def part_of(backbone: nn.Module, names: Sequence[str]) -> OrderedDict[str, nn.Module]:
    """Blocks under timm's names, so that exported weights keep them."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for name in names:
        if name == "stem":
            parts.update(block_modules(backbone, name))
            continue
        layer, block = name.split(".")
        blocks = parts.setdefault(layer, nn.Sequential())
        blocks.add_module(block, backbone.get_submodule(name))
    return parts


class Trunk(nn.Sequential):
    """The network before the cut: images → feature map."""

    def __init__(self, network: Network, cut: str) -> None:
        blocks = part_of(network.backbone, network.blocks[: network.position(cut)])
        super().__init__(OrderedDict(normalise=network.normalise, **blocks))


def digest(part: nn.Module, preprocess_json: str) -> str:
    """SHA-256 of the preprocessing and of the names and float32 values of all weights.

    Equal digests mean the same function, regardless of the precision of the file.
    """
    sha = hashlib.sha256(preprocess_json.encode())
    for name, value in sorted(part.state_dict().items()):
        if name.endswith("num_batches_tracked"):  # counts steps, changes no output
            continue
        sha.update(name.encode())
        sha.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return sha.hexdigest()
