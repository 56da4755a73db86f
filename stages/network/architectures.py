"""Small convolutional networks from the literature, registered with timm.

Importing this module, as :mod:`stages.network.model` does, registers them for
``timm.create_model``. Widths and input sizes that the authors do not report are our choice; the
settings under ``configs/systems/`` mark them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn


def _cfg() -> dict[str, Any]:
    """Pictures in [0, 1] without normalisation, of the fixed size of the network."""
    return {
        "url": "",
        "input_size": (3, 128, 128),
        "fixed_input_size": True,
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "first_conv": "blocks.0.conv",
        "classifier": "fc",
    }


default_cfgs = generate_default_cfgs(
    {f"{name}.none": _cfg() for name in ("cnn_plain", "cnn_small", "cnn_gap")}
)


class Block(nn.Sequential):
    """3 x 3 convolution, optional batch norm, ReLU, 2 x 2 max-pooling."""

    def __init__(self, inputs: int, outputs: int, padding: int, norm: bool) -> None:
        super().__init__()
        self.add_module("conv", nn.Conv2d(inputs, outputs, 3, padding=padding, bias=not norm))
        if norm:
            self.add_module("norm", nn.BatchNorm2d(outputs))
        self.add_module("act", nn.ReLU())
        self.add_module("pool", nn.MaxPool2d(2))


class PlainCnn(nn.Module):
    """Blocks of convolution and pooling, then one dense layer with dropout.

    The dense layer is between the feature map and the output, so the output is not linear in the
    map: the network has no class activation map.

    Args:
        widths: Channels of the blocks.
        dense: Width of the dense layer.
        img_size: (H, W) in px; without global pooling the dense layer's shape depends on it.
        padding: Padding of the convolutions, in px.
        batch_norm: Whether the blocks have batch norm.
        pool_all: Global average pooling before the dense layer, else the map is flattened.
        drop_rate: Dropout rate after the dense layer.
        num_classes: Number of outputs; 0 returns the output of the dense layer.
        in_chans, global_pool: Part of every timm model's signature.
    """

    def __init__(
        self,
        widths: Sequence[int],
        dense: int,
        img_size: tuple[int, int] = (128, 128),
        padding: int = 1,
        batch_norm: bool = False,
        pool_all: bool = False,
        drop_rate: float = 0.5,
        num_classes: int = 1,
        in_chans: int = 3,
        global_pool: str = "",
    ) -> None:
        super().__init__()
        del global_pool  # pooling is part of the architecture
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = dense
        ends = [in_chans, *widths]
        self.blocks = nn.Sequential(
            *(Block(a, b, padding, batch_norm) for a, b in zip(ends, widths, strict=False))
        )
        with torch.no_grad():
            cells = self.blocks.eval()(torch.zeros(1, in_chans, *img_size))[0, 0].numel()
        self.blocks.train()
        self.pool = nn.AdaptiveAvgPool2d(1) if pool_all else nn.Identity()
        self.dense = nn.Linear(widths[-1] * (1 if pool_all else cells), dense)
        self.act = nn.ReLU()
        self.drop = nn.Dropout(drop_rate)
        self.fc = nn.Linear(dense, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) → the last block's map (N, C, h, w)."""
        maps: Tensor = self.blocks(x)
        return maps

    def forward_head(self, x: Tensor) -> Tensor:
        """The map → (N, classes), or the dense layer's (N, D) without classes."""
        x = self.drop(self.act(self.dense(self.pool(x).flatten(1))))
        logits: Tensor = self.fc(x)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, classes)."""
        return self.forward_head(self.forward_features(x))


def _build(name: str, pretrained: bool, options: dict[str, Any], **shape: Any) -> nn.Module:
    network: nn.Module = build_model_with_cfg(PlainCnn, name, pretrained, **{**shape, **options})
    return network


@register_model
def cnn_plain(pretrained: bool = False, **options: Any) -> nn.Module:
    """System B: convolution and ReLU, max-pooling, dense, dropout."""
    return _build("cnn_plain", pretrained, options, widths=(32, 64, 128), dense=256)


@register_model
def cnn_small(pretrained: bool = False, **options: Any) -> nn.Module:
    """System C: convolutions of 32 and 64 without padding, dense 128, dropout 0.5."""
    return _build("cnn_small", pretrained, options, widths=(32, 64), dense=128, padding=0)


@register_model
def cnn_gap(pretrained: bool = False, **options: Any) -> nn.Module:
    """System D: four blocks with batch norm, global average pooling, dense, dropout."""
    return _build(
        "cnn_gap", pretrained, options,
        widths=(32, 64, 128, 256), dense=128, batch_norm=True, pool_all=True,
    )  # fmt: skip
