"""Backbones by name: those of timm and small networks from publications."""

import pytest
import timm
import torch

from pipeline.errors import ConfigError
from stages.export.exported_head import Head
from stages.network.model import Network, make_backbone

pytestmark = pytest.mark.slow

CANVAS = (64, 96)
WITH_MAP = {
    "resnet18": "layer4.1",
    "efficientnet_b0": "stem",
    "convnext_atto": "stem",
    "vit_tiny_patch16_224": "stem",
    "xcit_nano_12_p16_224": "stem",
    "swin_tiny_patch4_window7_224": "stem",
    "densenet121": "stem",
}
"""A backbone of each family, and its cut if the setting is layer4.1."""
WITHOUT = ("cnn_plain", "cnn_small", "cnn_gap", "vgg11")


def network(arch, labels=("a", "b"), cut="layer4.1"):
    torch.manual_seed(0)
    return Network(labels, "conv2", cut, arch=arch, canvas_px=CANVAS).eval()


@pytest.mark.parametrize("arch", WITH_MAP)
def test_mean_evidence_equals_the_logit_for_every_backbone(arch):
    model = network(arch)
    assert model.trainable_from == WITH_MAP[arch]
    pictures = torch.rand(2, 1, *CANVAS)
    with torch.inference_mode():
        logits, evidence = model.answer(model.prefix(pictures))
        whole = model(pictures)
    assert model.heatmap
    assert evidence.shape[2] * CANVAS[1] == evidence.shape[3] * CANVAS[0]  # square cells
    torch.testing.assert_close(evidence.mean((2, 3)) + model.fc.bias, logits)
    torch.testing.assert_close(whole, logits)
    assert logits.std() > 0


@pytest.mark.parametrize("arch", WITHOUT)
def test_backbone_without_a_linear_map_has_no_heatmap(arch):
    model = network(arch)
    pictures = torch.rand(2, 1, *CANVAS)
    with torch.inference_mode():
        logits, evidence = model.answer(model.prefix(pictures))
        parts = Head(model, "stem", [1], [1.0], [0.0]).eval()(pictures)
    assert not model.heatmap
    assert evidence is None
    assert len(parts) == 2
    torch.testing.assert_close(parts[0], logits[:, 1:])


def test_cells_of_a_transformer_map_match_its_patches():
    """The map changes most at the patch that was changed."""
    model = network("vit_tiny_patch16_224", labels=("a",))
    plain = torch.full((1, 3, *CANVAS), 0.5)
    marked = plain.clone()
    marked[..., 32:48, 64:80] = torch.rand(16, 16)  # the cell in row 2, column 4
    with torch.inference_mode():
        first, second = (model.grid(model.backbone(x)) for x in (plain, marked))
    change = (second - first).norm(dim=1)[0]
    assert divmod(int(change.argmax()), change.shape[1]) == (2, 4)


def shapes(arch, **options):
    model = timm.create_model(arch, num_classes=1, **options)
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    return [tuple(m.weight.shape) for m in model.modules() if isinstance(m, kinds)]


def test_small_networks_have_the_published_shapes():
    # From 128 px, two blocks without padding give 30 px, three with padding 16 px.
    assert shapes("cnn_small") == [
        (32, 3, 3, 3), (64, 32, 3, 3), (128, 64 * 30 * 30), (1, 128),
    ]  # fmt: skip
    assert shapes("cnn_plain") == [
        (32, 3, 3, 3), (64, 32, 3, 3), (128, 64, 3, 3), (256, 128 * 16 * 16), (1, 256),
    ]  # fmt: skip
    assert shapes("cnn_gap") == [
        (32, 3, 3, 3), (64, 32, 3, 3), (128, 64, 3, 3), (256, 128, 3, 3), (128, 256), (1, 128),
    ]  # fmt: skip
    norms = [m for m in timm.create_model("cnn_gap").modules() if type(m).__name__ == "BatchNorm2d"]
    assert len(norms) == 4
    drops = {type(m).__name__: m for m in timm.create_model("cnn_small").modules()}
    assert drops["Dropout"].p == 0.5


def test_error_for_an_unknown_name_suggests_the_most_similar():
    with pytest.raises(ConfigError, match="timm has no model 'resnet5o'") as caught:
        make_backbone("resnet5o", CANVAS)
    assert "resnet50" in caught.value.hint


def test_error_for_an_unknown_block_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"resnet18 has no block 'layer4.2'.*layer4.1"):
        network("resnet18", cut="layer4.2")


def test_stride_on_conv1_needs_a_bottleneck():
    for arch in ("resnet18", "cnn_gap"):
        with pytest.raises(ConfigError, match=f"{arch} has no bottleneck"):
            Network(("a",), "conv1", "stem", arch=arch)


def test_normalisation_is_that_of_the_backbone():
    assert network("cnn_gap").normalise.mean.unique().tolist() == [0.0]
    assert network("resnet18").normalise.mean.flatten().tolist() == pytest.approx(
        [0.485, 0.456, 0.406]
    )
    assert network("vit_tiny_patch16_224").normalise.std.unique().tolist() == [0.5]
