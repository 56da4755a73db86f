"""Initial weights from exported bundles and from run folders."""

import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pipeline.bundle import Precision
from pipeline.cli import main
from pipeline.errors import ConfigError
from pipeline.weights.manifest import read_manifest, write_manifest
from stages.network import checkpoint
from stages.network.model import Network
from stages.training.initial_weights import find_initial, read_shipped
from stages.training.run import load_network


@pytest.mark.parametrize("stage", ["region", "fracture-hand"])
def test_float_bundles_contain_the_trained_weights_by_name(project, stage):
    network, described = load_network(project / "runs" / stage.removeprefix("fracture-"))
    initial, spec = read_shipped(project / "weights", stage)
    assert initial.stride_on == described["stride_on"]
    assert spec.name == stage
    trained = network.state_dict()
    kept = {k: v for k, v in initial.weights.items() if not k.startswith("fc.")}
    expected = {k for k in trained if k.startswith("backbone.") and "num_batches" not in k}
    assert kept.keys() == expected
    for name, value in kept.items():
        torch.testing.assert_close(value, trained[name], msg=name)
    np.testing.assert_allclose(
        initial.weights["fc.weight"], trained["fc.weight"][: len(spec.labels)], rtol=1e-6
    )


def test_rows_of_the_linear_layer_are_assigned_by_label(project):
    initial = find_initial(str(project / "weights"), "auto", "region")
    network = Network(("fracture", "hand"), initial.stride_on, "stem")
    fresh = initial.load_into(network)
    hand = initial.rows.index("hand")
    assert torch.equal(network.fc.weight[1], initial.weights["fc.weight"][hand])
    assert [name for name in fresh if "num_batches" not in name] == ["fc.weight", "fc.bias"]


def test_run_folder_gives_initial_weights(project):
    initial = find_initial(str(project / "runs/region"), "auto", "region")
    network = Network(initial.rows, initial.stride_on, "stem")
    assert initial.load_into(network) == []
    best, _ = checkpoint.load(project / "runs/region/best.safetensors")
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, best[name], msg=name)


def test_weights_in_int8_only_are_refused(project, tmp_path):
    weights = shutil.copytree(project / "weights", tmp_path / "weights")
    listed = read_manifest(weights).of(Precision.INT8)
    write_manifest(weights, {(entry.name, entry.precision): entry for entry in listed})
    with pytest.raises(ConfigError, match="no region in fp32 or fp16"):
        find_initial(str(weights), "auto", "region")


def test_shipped_specialist_is_fine_tuned(project, tmp_path):
    result = CliRunner().invoke(
        main,
        ["train-stage", "fracture", "--region", "hand", "--index", str(project / "index.csv"),
         "--from", str(project / "weights"), "--output", str(tmp_path / "hand"), "--quiet",
         "--set", "optim.epochs=1", "--set", "data.workers=0", "--set", "optim.batch_size=8",
         "--set", "train.device=cpu", "--set", "train.precision=32-true"],
        catch_exceptions=False,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    after, _ = checkpoint.load(tmp_path / "hand/best.safetensors")
    before, _ = load_network(project / "runs/hand")
    frozen = [k for k in after if k.startswith("backbone.") and "layer4.2" not in k]
    frozen = [k for k in frozen if "num_batches" not in k]
    assert all(torch.allclose(after[k], before.state_dict()[k]) for k in frozen)
    assert not torch.equal(after["fc.weight"], before.state_dict()["fc.weight"])
