"""The network: a timm ResNet50 with one linear layer, and its cut into trunk and head."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Literal

import timm
import torch
from torch import Tensor, nn

from .config import BLOCKS

ARCHITECTURE = "resnet50"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FEATURES = 2048

StrideOn = Literal["conv1", "conv2"]


class Normalise(nn.Module):
    """(N, 1, H, W) in [0, 1] → (N, 3, H, W) as ImageNet networks expect it."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Repeat the grey channel and standardise it."""
        return (images - self.mean) / self.std


class Network(nn.Module):
    """A whole ResNet50 with K outputs, its first blocks frozen or not.

    Attributes:
        labels: K names of the outputs.
        stride_on: Which convolution of a down-sampling block strides: ``conv1`` in the original
            ResNet (He et al. 2015, arXiv 1512.03385), ``conv2`` in torchvision and timm.
        trainable_from: First block that learns.
    """

    def __init__(
        self, labels: Sequence[str], stride_on: StrideOn, trainable_from: str, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.stride_on = stride_on
        self.trainable_from = trainable_from
        self.normalise = Normalise()
        self.backbone = timm.create_model(ARCHITECTURE, num_classes=0, global_pool="")
        if stride_on == "conv1":
            for layer in ("layer2", "layer3", "layer4"):
                block = self.backbone.get_submodule(f"{layer}.0")
                for name, stride in (("conv1", (2, 2)), ("conv2", (1, 1))):
                    convolution = block.get_submodule(name)
                    assert isinstance(convolution, nn.Conv2d)  # noqa: S101  (tells mypy)
                    convolution.stride = stride
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(FEATURES, len(self.labels))
        for block in self._frozen():
            block.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, H, W) float32 in [0, 1] → (N, K) logits."""
        return self.answer(self.prefix(images))[0]

    def prefix(self, images: Tensor) -> Tensor:
        """What the frozen blocks make of (N, 1, H, W) pictures in [0, 1]: (N, C, h, w)."""
        return self._through(BLOCKS[: position(self.trainable_from)], self.normalise(images))

    def answer(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """The blocks that learn, and the decision.

        Args:
            maps: What :meth:`prefix` gave.

        Returns:
            Logits (N, K), and evidence (N, K, h, w) as :class:`Head` describes it.
        """
        maps = self._through(BLOCKS[position(self.trainable_from) :], maps)
        logits: Tensor = self.fc(self.dropout(maps.mean((2, 3))))
        return logits, nn.functional.conv2d(maps, self.fc.weight[:, :, None, None])

    def _through(self, blocks: Sequence[str], maps: Tensor) -> Tensor:
        for name in blocks:
            for module in block_modules(self.backbone, name):
                maps = module(maps)
        return maps

    def train(self, mode: bool = True) -> Network:
        """Switch to training, but for the frozen blocks: their batch-norm statistics stay."""
        super().train(mode)
        for block in self._frozen():
            block.eval()
        return self

    def _frozen(self) -> Iterator[nn.Module]:
        for name in BLOCKS[: position(self.trainable_from)]:
            yield from block_modules(self.backbone, name)


STEM = ("conv1", "bn1", "act1", "maxpool")


def block_modules(backbone: nn.Module, name: str) -> tuple[nn.Module, ...]:
    """The modules of a block, in order: one, but for the stem."""
    return tuple(backbone.get_submodule(n) for n in (STEM if name == "stem" else (name,)))


def position(cut: str) -> int:
    """Index of a block in ``BLOCKS``; ``layer4`` means its first block."""
    return BLOCKS.index(cut if cut in BLOCKS else f"{cut}.0")


def _part(backbone: nn.Module, names: Sequence[str]) -> OrderedDict[str, nn.Module]:
    """Blocks under timm's own names, so that exported weights keep them."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for name in names:
        if name == "stem":
            parts.update(zip(STEM, block_modules(backbone, name), strict=True))
            continue
        layer, block = name.split(".")
        blocks = parts.setdefault(layer, nn.Sequential())
        blocks.add_module(block, backbone.get_submodule(name))
    return parts


class Trunk(nn.Sequential):
    """Everything before the cut: images → feature map."""

    def __init__(self, network: Network, cut: str) -> None:
        blocks = _part(network.backbone, BLOCKS[: position(cut)])
        super().__init__(OrderedDict(normalise=network.normalise, **blocks))


class Head(nn.Module):
    """Everything from the cut on, with calibration: feature map (or image) → decisions.

    Args:
        network: The trained network; its modules are shared, not copied.
        cut: First block of the head.
        columns: Which outputs of the network this stage speaks for.
        temperature, bias: One value a column: probability = sigmoid(logit / temperature + bias).
    """

    temperature: Tensor
    bias: Tensor

    def __init__(
        self,
        network: Network,
        cut: str,
        columns: Sequence[int],
        temperature: Sequence[float],
        bias: Sequence[float],
    ) -> None:
        super().__init__()
        start = position(cut)
        blocks = _part(network.backbone, BLOCKS[start:])
        if start == 0:
            blocks = OrderedDict(normalise=network.normalise, **blocks)
        for name, module in blocks.items():
            self.add_module(name, module)
        self._order = tuple(blocks)
        self.fc = nn.Linear(FEATURES, len(columns))
        self.fc.load_state_dict(
            {"weight": network.fc.weight[list(columns)], "bias": network.fc.bias[list(columns)]}
        )
        self.register_buffer("temperature", torch.tensor(temperature))
        self.register_buffer("bias", torch.tensor(bias))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the head.

        Returns:
            Logits (N, K), calibrated probabilities (N, K), and evidence (N, K, h, w), whose mean
            over h and w plus the linear layer's bias is the logit (class activation map,
            Zhou et al. 2016, arXiv 1512.04150).
        """
        for name in self._order:
            x = self.get_submodule(name)(x)
        logits = self.fc(x.mean((2, 3)))
        evidence = nn.functional.conv2d(x, self.fc.weight[:, :, None, None])
        probabilities = torch.sigmoid(logits / self.temperature + self.bias)
        return logits, probabilities, evidence


def digest(part: nn.Module, preprocess_json: str) -> str:
    """SHA-256 over names and float32 values of all weights, and the preprocessing before them.

    Equal digests mean the same function of the same pictures, whatever the file's precision.
    """
    sha = hashlib.sha256(preprocess_json.encode())
    for name, value in sorted(part.state_dict().items()):
        if name.endswith("num_batches_tracked"):  # counts steps, changes no output
            continue
        sha.update(name.encode())
        sha.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return sha.hexdigest()
