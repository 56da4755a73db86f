"""Export: equality of bundles and networks, the parity gate, trunks, the contract."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.bundle import FractureSpec, Kind, Precision
from pipeline.config import RunConfig
from pipeline.domain import StageOutput
from pipeline.errors import BundleError, ConfigError, ExportRefusedError
from pipeline.preprocess import PreprocessSpec
from pipeline.runtime.session import load_bundles
from pipeline.weights.manifest import read_manifest
from stages.data.dataset import read_array
from stages.data.index import read_index
from stages.export.export_runs import Built, ExportConfig, export_runs, find_runs
from stages.export.exported_head import Head
from stages.export.parity import DENSITY_TOLERANCE, TOLERANCE, Parity, compare, gate
from stages.network.density import fit_density, save
from stages.network.gradcam import grad_cam
from stages.network.model import Network, Trunk, digest
from stages.settings import DensityConfig
from stages.statistics.calibration import fit_calibration
from stages.training.assessment import SHIFTED
from stages.training.finished_run import load_runs
from stages.training.run import load_network


@pytest.fixture(scope="module")
def pictures(project):
    index = read_index(project / "index.csv")
    spec = PreprocessSpec(height_px=64, width_px=64)
    return np.stack([read_array(sample, spec) for sample in index.of("test")[:8]])


@pytest.fixture(scope="module")
def fp32(project):
    return load_bundles(project / "weights", RunConfig(device="cpu", precision="fp32", looks=1))


@pytest.mark.parametrize("stage", ["region", "elbow", "hand", "shoulder"])
def test_exported_trunk_and_head_equal_the_trained_network(project, pictures, fp32, stage):
    network, described = load_network(project / "runs" / stage)
    columns = len(described["labels"])
    with torch.inference_mode():
        expected = network(torch.from_numpy(pictures)).numpy()[:, :columns]
    bundle = fp32.region if stage == "region" else fp32.fracture[stage]
    features = fp32.trunks[bundle.spec.trunk].features(pictures)
    np.testing.assert_allclose(bundle.predict(features).logits, expected, atol=2e-4)


def test_output_does_not_depend_on_the_batch_size(pictures, fp32):
    trunk = fp32.trunks[fp32.region.spec.trunk]
    batched = fp32.region.predict(trunk.features(pictures)).logits
    single = [fp32.region.predict(trunk.features(pictures[i : i + 1])).logits for i in range(8)]
    np.testing.assert_allclose(np.concatenate(single), batched, atol=1e-4)


def test_probabilities_are_calibrated_logits(project, pictures, fp32):
    head = fp32.fracture["hand"]
    output = head.predict(fp32.trunks[head.spec.trunk].features(pictures))
    z = output.logits / head.spec.temperature[0] + head.spec.bias[0]
    np.testing.assert_allclose(output.probabilities, 1 / (1 + np.exp(-z)), atol=1e-5)


def test_specialists_exported_together_share_one_calibration(project, fp32):
    runs = [project / "runs" / region for region in ("elbow", "hand", "shoulder")]
    tables = [pd.read_csv(run / "predictions.csv") for run in runs]
    # The validation pictures, original and in random views.
    rows = pd.concat([table[table["split"].isin(("val", SHIFTED))] for table in tables])
    labels, logits = (rows[c].to_numpy(np.float32) for c in ("label", "logit_fracture"))
    expected = fit_calibration(labels, logits)
    for stage in fp32.fracture.values():
        assert (stage.spec.temperature[0], stage.spec.bias[0]) == pytest.approx(expected, rel=1e-5)
    separate = json.loads((project / "runs/hand/result.json").read_text())
    assert separate["bias"][0] != pytest.approx(expected[1], rel=1e-3)


def test_mean_evidence_equals_the_logit_and_evidence_equals_grad_cam(project, pictures, fp32):
    network, _ = load_network(project / "runs/hand")
    head = fp32.fracture["hand"]
    features = fp32.trunks[head.spec.trunk].features(pictures)
    output = head.predict(features, evidence=True)
    bias = float(network.fc.bias.detach())
    np.testing.assert_allclose(output.evidence.mean((2, 3)) + bias, output.logits, atol=1e-4)
    last = torch.nn.Sequential(network.backbone.get_submodule("layer4.2"))
    reference = grad_cam(last, network.fc, torch.from_numpy(features), 0)
    area = output.evidence.shape[2] * output.evidence.shape[3]
    np.testing.assert_allclose(output.evidence[:, 0] / area, reference, atol=1e-4)


def test_fp16_is_close_to_fp32(project, pictures, fp32):
    half = load_bundles(project / "weights", RunConfig(device="cpu", precision="fp16", looks=1))
    trunk = fp32.region.spec.trunk
    expected = fp32.region.predict(fp32.trunks[trunk].features(pictures)).logits
    logits = half.region.predict(half.trunks[trunk].features(pictures)).logits
    np.testing.assert_allclose(logits, expected, atol=0.05)
    assert not np.array_equal(logits, expected)


def test_exported_weights_keep_their_names_and_values(project):
    """Fine-tuning from the shipped float bundles needs them."""
    import onnx

    network, _ = load_network(project / "runs/region")
    expected = network.backbone.state_dict()
    entries = read_manifest(project / "weights").of(Precision.FP16)
    exported = {}
    for name in ("trunk", "region"):
        entry = next(e for e in entries if e.name == name)
        for tensor in onnx.load(project / "weights" / entry.file).graph.initializer:
            exported[tensor.name] = onnx.numpy_helper.to_array(tensor)
    names = [n for n in expected if not n.endswith("num_batches_tracked")]
    assert set(names) <= set(exported)
    for name in names:
        np.testing.assert_allclose(exported[name], expected[name], rtol=2e-3, atol=1e-4)


def test_int8_excludes_the_first_blocks_and_does_not_overflow_without_vnni(project):
    """Processors without VNNI add two adjacent products in 16 bits."""
    import onnx

    entry = next(
        e for e in read_manifest(project / "weights").of(Precision.INT8) if e.name == "trunk"
    )
    graph = onnx.load(project / "weights" / entry.file).graph
    kernels = {
        t.name: onnx.numpy_helper.to_array(t).astype(int)
        for t in graph.initializer
        if t.name.endswith("weight_quantized")
    }
    assert len(kernels) == 45  # 50 convolutions, 5 of them in the stem and the first block
    assert not [name for name in kernels if name.startswith(("conv1.", "layer1.0."))]
    for kernel in kernels.values():
        assert np.abs(kernel).max() <= 127
        for ordered in (kernel, kernel.transpose(0, 2, 3, 1)):
            flat = ordered.reshape(len(kernel), -1)
            for sign in (1, -1):
                part = np.maximum(sign * flat, 0)
                assert 255 * int((part[:, 1:] + part[:, :-1]).max()) < 2**15
    assert max(int(np.abs(kernel).max()) for kernel in kernels.values()) > 64
    assert not [node for node in graph.node if node.op_type == "BatchNormalization"]


def test_bundles_contain_no_path_of_the_exporting_machine(project):
    for entry in read_manifest(project / "weights").bundles:
        content = (project / "weights" / entry.file).read_bytes()
        assert b"site-packages" not in content
        assert str(project).encode() not in content


def test_head_cut_at_the_stem_is_the_whole_network(project, pictures):
    network, _ = load_network(project / "runs/hand")
    head = Head(network, "stem", [0], [1.0], [0.0]).eval()
    with torch.inference_mode():
        expected = network(torch.from_numpy(pictures))
        assert torch.allclose(head(torch.from_numpy(pictures))[0], expected, atol=1e-5)


def test_digest_depends_on_the_trunk_and_its_preprocessing_only():
    torch.manual_seed(0)
    first = Network(("a",), "conv2", "stem")
    second = Network(("a", "b"), "conv2", "stem")
    second.backbone.load_state_dict(first.backbone.state_dict())
    digests = [digest(Trunk(n, "layer4.2"), "spec") for n in (first, second)]
    assert digests[0] == digests[1]
    assert digest(Trunk(first, "layer4.2"), "another spec") != digests[0]
    with torch.no_grad():
        second.backbone.layer1[0].conv1.weight[0, 0, 0, 0] += 1e-3
    assert digest(Trunk(second, "layer4.2"), "spec") != digests[0]


def row(**changes):
    values = {
        "name": "x", "precision": Precision.INT8, "pictures": 9, "max_logit_difference": 0.1,
        "mean_logit_difference": 0.0, "decisions": 9, "flips": 0, "near_flips": 1, "margin": 0.05,
        "tolerance": 1.0,
    }  # fmt: skip
    return Parity(**{**values, **changes})


@pytest.mark.parametrize(
    "change",
    [
        {"flips": 1},
        {"max_logit_difference": 1.01},
        {"max_density_difference": 0.2},
        {"max_density_difference": float("nan")},
    ],
)
def test_gate_refuses_flips_and_large_differences(change):
    gate([row()])
    with pytest.raises(ExportRefusedError, match="REFUSED"):
        gate([row(), row(**change)])


def test_flip_is_counted_only_outside_the_margin(fp32):
    spec = fp32.fracture["hand"].spec
    threshold = spec.operating_points["balanced"].threshold
    points = {"only": spec.operating_points["balanced"]}
    spec = spec.model_copy(update={"operating_points": points, "precision": Precision.INT8})
    expected = output_of(spec, [threshold + 0.06, threshold + 0.04])
    parity = compare(spec, expected, output_of(spec, [threshold - 0.01] * 2))
    assert (parity.flips, parity.near_flips, parity.decisions) == (1, 1, 2)


def output_of(spec, probabilities, density=None):
    """Output of a stage with these probabilities for every label; all logits are 0."""
    p = np.repeat(np.array(probabilities, np.float32)[:, None], len(spec.labels), 1)
    density = None if density is None else np.array(density, np.float32)
    return StageOutput(spec.labels, np.zeros_like(p), p, density=density)


def test_decisions_of_the_density_gate_are_compared(fp32):
    gate = fp32.region.spec.density
    gate = gate.model_copy(update={"far": gate.threshold})
    spec = fp32.region.spec.model_copy(update={"precision": Precision.INT8, "density": gate})
    threshold, (limit, margin) = spec.density.threshold, DENSITY_TOLERANCE[Precision.INT8]
    expected = output_of(spec, [0.99, 0.99], [threshold + 1.1 * margin, threshold + 0.9 * margin])
    parity = compare(spec, expected, output_of(spec, [0.99, 0.99], [threshold - 0.1 * margin] * 2))
    assert (parity.flips, parity.near_flips, parity.decisions) == (2, 2, 10)  # refused and far
    assert parity.max_density_difference == pytest.approx(1.2 * margin, abs=1e-5)
    assert not parity.passed
    far = output_of(spec, [0.99], [threshold + 3 * limit])
    assert not compare(spec, far, output_of(spec, [0.99], [threshold + limit])).passed
    assert compare(spec, far, far).passed
    assert not compare(spec, far, output_of(spec, [0.99])).passed


def test_region_run_without_a_density_gate_is_refused(project, tmp_path):
    import shutil

    run = shutil.copytree(project / "runs/region", tmp_path / "region")
    (run / "density.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"no density\.safetensors"):
        load_runs([run])


def test_bundle_contains_the_density_gate_of_the_run(project, pictures, fp32):
    """It is fitted after training, described in ``result.json`` and computed by the graph."""
    from stages.network.density import load, similarity

    run = project / "runs/region"
    network, described = load_network(run)
    fitted = load(run, described["cut"])
    stored = json.loads((run / "result.json").read_text())["density"]
    assert fp32.region.spec.density == fitted.contract == fp32.gate
    contract = fitted.contract.model_dump()
    assert {key: stored[key] for key in contract} == contract
    assert stored["val"]["supported_refused"]["value"] <= 0.2
    assert stored["test"]["unsupported_pictures"] > 0
    with torch.inference_mode():
        depths = network.depths(torch.from_numpy(pictures), described["cut"]).numpy()
    assert depths.shape[1] == fitted.projection.shape[0]
    features = fp32.trunks[fp32.region.spec.trunk].features(pictures)
    density = fp32.region.predict(features).density
    np.testing.assert_allclose(density, similarity(depths, fitted), atol=1e-4)


def test_float_bundle_is_reloaded_with_its_density_gate(project, fp32):
    from stages.export.reload import load_again
    from stages.network.density import load

    (run,) = [run for run in load_again(project / "weights") if run.stage.kind is Kind.REGION]
    fitted = load(project / "runs/region", "layer4.2")
    assert run.density is not None
    assert run.density.contract == fp32.region.spec.density
    np.testing.assert_array_equal(run.density.references, fitted.references)
    np.testing.assert_array_equal(run.density.projection, fitted.projection)


def test_refused_export_does_not_write_the_weights_folder(project, tmp_path, monkeypatch):
    monkeypatch.setitem(TOLERANCE, Precision.INT8, (1e-9, 0.0))
    index = read_index(project / "index.csv")
    from pipeline.progress import Silent

    config = ExportConfig(precisions=("int8",), pictures=2, calibration_pictures=2)
    with pytest.raises(ExportRefusedError):
        export_runs(
            load_runs([project / "runs/region"]), index, tmp_path / "weights", config, Silent()
        )
    assert not (tmp_path / "weights").exists()


def test_new_trunk_removes_the_heads_of_the_old_one_from_the_manifest(project, tmp_path):
    import shutil

    from pipeline.progress import Silent

    weights = shutil.copytree(project / "weights", tmp_path / "weights")
    run = shutil.copytree(project / "runs/region", tmp_path / "region")
    described = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**described, "cut": "layer4"}))
    network, _ = load_network(run)
    with torch.inference_mode():
        depths = network.depths(torch.rand(8, 1, 64, 64), "layer4").numpy()
    save(run, fit_density(depths, depths, DensityConfig()), "layer4")
    config = ExportConfig(precisions=("fp32",), pictures=2, calibration_pictures=2)
    export_runs(load_runs([run]), read_index(project / "index.csv"), weights, config, Silent())
    bundles = read_manifest(weights).bundles
    assert {entry.name for entry in bundles} == {"trunk", "region"}
    assert all((weights / entry.file).is_file() for entry in bundles)
    with pytest.raises(BundleError, match="no fracture stage"):
        load_bundles(weights, RunConfig(device="cpu"))


def test_head_exported_separately_uses_the_existing_trunk(project, tmp_path):
    import shutil

    from pipeline.progress import Silent

    weights = shutil.copytree(project / "weights", tmp_path / "weights")
    before = read_manifest(weights)
    config = ExportConfig(precisions=("fp32",), pictures=2, calibration_pictures=2)
    index = read_index(project / "index.csv")
    rows = export_runs(load_runs([project / "runs/hand"]), index, weights, config, Silent())
    names = [(row.name, str(row.precision)) for row in rows]
    assert names[:2] == [("fracture-hand", "fp32"), ("fracture-hand in 4 looks", "fp32")]
    assert all(row.passed and row.decisions for row in rows)
    after = read_manifest(weights)
    removed = {(e.name, e.precision) for e in before.bundles} - {
        (e.name, e.precision) for e in after.bundles
    }
    assert removed == {("fracture-hand", Precision.INT8), ("fracture-hand", Precision.FP16)}
    assert {e.name for e in after.bundles if e.kind is Kind.TRUNK} == {"trunk"}
    opened = load_bundles(weights, RunConfig(device="cpu"))
    assert opened.precision is Precision.FP32
    assert len(opened.trunks) == 1


def test_new_trunk_gets_the_common_name_and_an_old_one_another():
    built = Built({"old": "trunk"})
    assert built.trunk_name("old", "trunk-fracture-hand") == "trunk"
    assert built.trunk_name("new", "trunk") == "trunk"
    assert built.trunk_name("old", "trunk-fracture-hand") == "trunk-fracture-hand"


def test_region_run_is_found_first(project):
    runs = find_runs(project / "runs")
    assert runs[0].name == "region"
    assert {run.name for run in runs} == {"region", "elbow", "hand", "shoulder"}


def test_contract_contains_the_data_and_the_thresholds(fp32):
    spec = fp32.fracture["hand"].spec
    assert spec.kind is Kind.FRACTURE
    assert spec.target == "fracture"
    assert set(spec.operating_points) == {"sensitive", "balanced", "specific"}
    assert "fracatlas" in spec.provenance.data


def test_fully_fine_tuned_specialist_is_a_complete_network_and_runs_with_heads(
    project, data, tmp_path
):
    import shutil

    from click.testing import CliRunner
    from conftest import TINY

    from pipeline.cli import main

    weights = shutil.copytree(project / "weights", tmp_path / "weights")
    run = tmp_path / "fracture-hand"
    tiny = [w for s in TINY if "preprocess" not in s for w in ("--set", s)]
    for words in (
        ["train-stage", "fracture", "--region", "hand", "--index", project / "index.csv",
         "--from", project / "runs/region", "--output", run, "--quiet", *tiny,
         "--set", "optim.epochs=1"],
        ["export", "--run", run, "--index", project / "index.csv", "--weights", weights,
         "--precision", "fp32", "--precision", "int8", "--precision", "fp16",
         "--set", "pictures=4", "--set", "calibration_pictures=8"],
        ["run", "--input", data / "images/IMG0000028.jpg", "--weights", weights, "--device", "cpu",
         "--output", tmp_path / "out"],
    ):  # fmt: skip
        result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    opened = load_bundles(weights, RunConfig(device="cpu", precision="fp32", looks=1))
    hand, elbow = opened.fracture["hand"].spec, opened.fracture["elbow"].spec
    assert isinstance(hand, FractureSpec)
    assert isinstance(elbow, FractureSpec)
    assert (hand.input, hand.trunk) == ("image", None)
    assert (elbow.input, elbow.trunk) == ("features", opened.region.spec.trunk)
