"""The network: initial weights, stride, trunk and head, availability of the hub."""

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from pipeline.errors import ConfigError
from stages.export.exported_head import Head
from stages.network.model import Network, Trunk
from stages.settings import BLOCKS
from stages.training import initial_weights, pretrained_check
from stages.training.initial_weights import find_initial

pytestmark = pytest.mark.slow


def weights_file(path, drop=("layer4",), **metadata):
    """Write the weights of a random ResNet50 without the blocks ``drop``; return them."""
    torch.manual_seed(1)
    state = timm.create_model("resnet50", num_classes=0).state_dict()
    kept = {k: v.contiguous() for k, v in state.items() if not k.startswith(drop)}
    save_file(kept, path, metadata or None)
    return kept


def with_active_blocks(network):
    """Initialise the last norm of each block, which is 0 in timm and cancels the block's output."""
    for name, weight in network.named_parameters():
        if name.endswith("bn3.weight"):
            torch.nn.init.uniform_(weight, 0.2, 0.5)
    return network.eval()


def strides(network):
    return {
        layer: tuple(
            network.backbone.get_submodule(f"{layer}.0.{conv}").stride[0]
            for conv in ("conv1", "conv2")
        )
        for layer in ("layer2", "layer3", "layer4")
    }


def test_original_architecture_strides_on_the_first_convolution(tmp_path):
    weights_file(tmp_path / "v1.safetensors", architecture="resnet50 (original v1: …)")
    initial = find_initial(str(tmp_path / "v1.safetensors"), "auto", "region")
    assert (initial.name, initial.stride_on) == ("v1.safetensors", "conv1")
    network = Network(("a",), "conv1", "stem")
    assert strides(network) == dict.fromkeys(("layer2", "layer3", "layer4"), (2, 1))
    assert network.backbone.layer4[0].downsample[0].stride == (2, 2)
    assert network(torch.rand(2, 1, 64, 64)).shape == (2, 1)


def test_other_files_stride_on_the_second_convolution(tmp_path):
    weights_file(tmp_path / "plain.safetensors")
    for init in (str(tmp_path / "plain.safetensors"), "none"):
        assert find_initial(init, "auto", "region").stride_on == "conv2"
    assert strides(Network(("a",), "conv2", "stem"))["layer3"] == (1, 2)
    assert find_initial("none", "conv1", "region").stride_on == "conv1"


def test_output_depends_on_the_stride():
    torch.manual_seed(0)
    first = with_active_blocks(Network(("a",), "conv1", "stem"))
    second = Network(("a",), "conv2", "stem").eval()
    second.load_state_dict(first.state_dict())
    picture = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        assert not torch.allclose(first(picture), second(picture))


def test_hub_weights_with_stride_on_the_first_convolution_are_refused(monkeypatch):
    whole = timm.create_model("resnet50", num_classes=0)
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: whole)
    monkeypatch.setattr(initial_weights, "check_hub", lambda arch: None)
    assert find_initial("hub", "auto", "region").stride_on == "conv2"
    with pytest.raises(ConfigError, match="need conv2"):
        find_initial("hub", "conv1", "region")


def test_partial_weights_are_loaded_and_the_missing_names_returned(tmp_path):
    kept = weights_file(tmp_path / "part.safetensors", drop=("layer4", "layer3.5"))
    network = Network(("a",), "conv2", "stem")
    fresh = find_initial(str(tmp_path / "part.safetensors"), "auto", "region").load_into(network)
    loaded = network.backbone.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in kept.items())
    assert {"fc.weight", "fc.bias", "backbone.layer4.0.conv1.weight"} <= set(fresh)
    assert "backbone.layer3.5.conv1.weight" in fresh
    assert "backbone.layer3.4.conv1.weight" not in fresh
    names = {name for name, _ in network.named_parameters()}
    # The optimizer looks the weights up by these names.
    assert {"backbone.layer4.0.conv1.weight", "fc.weight", "fc.bias"} <= names


def test_weights_of_another_network_are_refused(tmp_path):
    save_file({"conv1.weight": torch.zeros(3, 3), "head": torch.zeros(1)}, tmp_path / "x")
    with pytest.raises(ConfigError, match=r"2 weights do not belong to resnet50"):
        find_initial(str(tmp_path / "x"), "auto", "region").load_into(
            Network(("a",), "conv2", "stem")
        )


def test_error_without_internet_suggests_a_file(monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(initial_weights, "check_hub", lambda arch: None)
    with pytest.raises(ConfigError, match="no route to host") as caught:
        find_initial("hub", "auto", "region")
    assert "--init FILE" in caught.value.hint


@pytest.fixture
def nothing_cached(monkeypatch):
    monkeypatch.setattr(pretrained_check, "try_to_load_from_cache", lambda *_: None)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_unresponsive_hub_is_an_error_within_5_seconds(monkeypatch, nothing_cached):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", host)
        started = time.perf_counter()
        with pytest.raises(ConfigError, match=f"resnet50 are not available: {host}: ") as caught:
            find_initial("hub", "auto", "region")
        assert time.perf_counter() - started < 5
    assert "--init shipped" in caught.value.hint


def test_hub_that_refuses_is_an_error_unless_the_weights_are_cached_or_do_not_exist(
    monkeypatch, nothing_cached
):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        host = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", host)
    with pytest.raises(ConfigError, match="refused"):
        pretrained_check.check_hub("resnet50")
    monkeypatch.setattr(pretrained_check, "try_to_load_from_cache", lambda *_: "model.safetensors")
    pretrained_check.check_hub("resnet50")
    monkeypatch.setattr(pretrained_check, "try_to_load_from_cache", lambda *_: None)
    pretrained_check.check_hub("cnn_plain")  # it has no weights on the hub

    class Missing(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(404)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Missing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        pretrained_check.check_hub("resnet50")
        server.shutdown()


@pytest.mark.parametrize("cut", ["layer1", "layer3.2", "layer4", "layer4.2"])
def test_trunk_and_head_equal_the_network_at_every_cut(cut):
    torch.manual_seed(0)
    network = with_active_blocks(Network(("a", "b"), "conv1", "stem"))
    picture = torch.rand(2, 1, 64, 64)
    trunk, head = Trunk(network, cut).eval(), Head(network, cut, [1], [2.0], [0.5]).eval()
    with torch.inference_mode():
        logits, probabilities, evidence = head(trunk(picture))
        expected = network(picture)[:, 1:]
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(probabilities, torch.sigmoid(expected / 2 + 0.5))
    torch.testing.assert_close(evidence.mean((2, 3)) + network.fc.bias[1], expected)


def test_block_names_exist_in_the_network():
    network = Network(("a",), "conv2", "stem")
    backbone = network.backbone
    assert network.blocks == BLOCKS
    for name in BLOCKS[1:]:
        assert backbone.get_submodule(name) is not None
    layers = [backbone.get_submodule(f"layer{i}") for i in range(1, 5)]
    assert len(BLOCKS) == 1 + sum(len(list(layer.children())) for layer in layers)
    assert [network.position(cut) for cut in ("stem", "layer1", "layer4.2")] == [0, 1, 16]


def test_files_that_are_not_checkpoints_are_refused(tmp_path):
    from stages.network import checkpoint

    save_file({"a": torch.zeros(1)}, tmp_path / "foreign")
    (tmp_path / "text").write_text(json.dumps({"a": 1}))
    for name in ("foreign", "text", "missing"):
        with pytest.raises(ConfigError, match=f"{name}: cannot read the checkpoint"):
            checkpoint.load(tmp_path / name)
