"""Opening weights folders: graphs and bundles that do not match are refused."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from bundles import GRID, SPEC, for_all, probability, spec, standard_specs
from tiny_networks import network, write_bundles

from pipeline.bundle import BundleSpec, Kind, Precision, TrunkSpec
from pipeline.config import RunConfig
from pipeline.errors import BundleError, UsageError
from pipeline.runtime.network import Network, Trunk
from pipeline.runtime.providers import open_session
from pipeline.runtime.session import load_bundles

CPU = RunConfig(device="cpu", intra_op_threads=1)


def opened(contract: BundleSpec, content: bytes | None = None) -> Network | Trunk:
    session, _ = open_session(content or network(contract), "cpu", 1, contract.name)
    if isinstance(contract, TrunkSpec):
        return Trunk(contract, "0" * 64, session)
    return Network(contract, "0" * 64, session)


def test_outputs_of_trunk_and_head():
    images = np.zeros((2, 1, 32, 32), np.float32)
    images[1, 0, :8, 8:16] = 0.6  # the cell of the hand
    features = opened(spec("trunk", Kind.TRUNK)).features(images)
    output = opened(spec("region", Kind.REGION)).predict(features, evidence=True)
    assert features.shape == (2, 1, GRID, GRID)
    assert output.probabilities[1, 1] == pytest.approx(probability(0.6), abs=1e-5)
    assert output.probabilities[0, 1] == pytest.approx(probability(0.0), abs=1e-5)
    assert output.evidence is not None
    np.testing.assert_allclose(output.evidence.mean((2, 3)) - 10.0, output.logits, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": "image"}, r"inputs are \['features'\], expected \['image'\]"),
        ({"labels": ("hand",), "route_thresholds": {"hand": 0.5}}, "logits is"),
    ],
)
def test_graph_that_differs_from_its_contract_is_refused(changes, message):
    content = network(spec("region", Kind.REGION))
    count = len(changes.get("labels", ("",) * 3))
    contract = spec(
        "region", Kind.REGION, **changes | {"temperature": (1.0,) * count, "bias": (0.0,) * count}
    )
    with pytest.raises(BundleError, match=message):
        opened(contract, content)


def test_network_without_heatmap_gives_no_evidence():
    stage = opened(spec("fracture-hand", Kind.FRACTURE, heatmap=False))
    output = stage.predict(np.zeros((1, 1, GRID, GRID), np.float32), evidence=True)
    assert output.evidence is None


def test_graph_without_evidence_output_is_refused():
    model = onnx.load_from_string(network(spec("region", Kind.REGION)))
    del model.graph.output[2]
    with pytest.raises(BundleError, match="no 'evidence' in the graph, which has features, log"):
        opened(spec("region", Kind.REGION), model.SerializeToString())


def test_graph_without_density_output_is_refused():
    content = network(spec("region", Kind.REGION, density=None))
    with pytest.raises(BundleError, match="no 'density' in the graph"):
        opened(spec("region", Kind.REGION), content)


def test_fixed_batch_size_is_refused():
    model = onnx.load_from_string(network(spec("trunk", Kind.TRUNK)))
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(BundleError, match="open batch size"):
        opened(spec("trunk", Kind.TRUNK), model.SerializeToString())


def test_canvas_that_differs_from_the_contract_is_refused():
    other = SPEC.model_copy(update={"height_px": 64})
    content = network(spec("trunk", Kind.TRUNK))
    with pytest.raises(BundleError, match=r"image is .* expected .*'N', 1, 64, 32"):
        opened(spec("trunk", Kind.TRUNK, preprocess=other), content)


def test_complete_weights_folder_opens(tmp_path, caplog):
    weights = load_bundles(write_bundles(tmp_path), CPU)
    assert list(weights.fracture) == ["elbow", "hand", "shoulder"]
    assert {point.name for point in weights.points.values()} == {"balanced"}
    assert (weights.device, weights.precision) == ("cpu", Precision.FP32)
    assert not caplog.records


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s[1:], "belongs to trunk aaaaaaaaaaaa, the weights folder has none"),
        (
            lambda s: [s[0], *s[2:]],
            "which has specialists for elbow, hand, shoulder: only a single fracture stage",
        ),
        (lambda s: s[:2], "no fracture stage"),
        (
            lambda s: [s[0], s[3], spec("fracture-all", Kind.FRACTURE)],
            "no region stage in the weights folder, which has specialists for all, hand",
        ),
        (lambda s: [*s, spec("region-two", Kind.REGION)], "2 region stages"),
        (
            lambda s: [*s, spec("fracture-new", Kind.FRACTURE, region="hand")],
            "two specialists for hand: fracture-hand and fracture-new",
        ),
        (
            lambda s: [*s[:-1], spec("fracture-hand", Kind.FRACTURE, trunk="b" * 64)],
            "belongs to trunk bbbbbbbbbbbb, the weights folder has aaaaaaaaaaaa",
        ),
        (
            lambda s: [
                *s[:2],
                spec(
                    "fracture-hand",
                    Kind.FRACTURE,
                    preprocess=SPEC.model_copy(update={"pad_value": 0.5}),
                ),
            ],
            "different preprocessing than its trunk",
        ),
    ],
)
def test_bundles_that_do_not_match_are_refused(tmp_path, change, message):
    specs = {contract.name: contract for contract in change(standard_specs())}
    with pytest.raises(BundleError, match=message):
        load_bundles(write_bundles(tmp_path, list(specs.values())), CPU)


def test_altered_file_is_refused_before_parsing(tmp_path):
    write_bundles(tmp_path)
    path = tmp_path / "region-fp32.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="the manifest lists"):
        load_bundles(tmp_path, CPU)


def test_missing_specialist_is_logged_at_the_start(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        load_bundles(write_bundles(tmp_path, standard_specs()[:-1]), CPU)
    assert "no specialist for shoulder" in caplog.text


def test_specialist_for_all_regions_needs_no_region_stage(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        weights = load_bundles(write_bundles(tmp_path, for_all()), CPU)
    assert (weights.region, list(weights.fracture)) == (None, ["all"])
    assert [stage.spec.name for stage in weights.stages] == ["fracture-all"]
    (message,) = caplog.messages
    assert "no region stage: every picture gets a verdict" in message


def test_specialist_for_all_regions_covers_missing_specialists(tmp_path, caplog):
    specs = [*standard_specs()[:3], spec("fracture-all", Kind.FRACTURE)]
    with caplog.at_level(logging.WARNING):
        weights = load_bundles(write_bundles(tmp_path, specs), CPU)
    assert set(weights.fracture) == {"elbow", "all"}
    assert not caplog.records


def test_int8_is_used_on_the_cpu_if_complete(tmp_path):
    both = standard_specs()
    both += [s.model_copy(update={"precision": Precision.INT8}) for s in both]
    assert load_bundles(write_bundles(tmp_path, both), CPU).precision is Precision.INT8
    incomplete = write_bundles(tmp_path / "part", both[:-1])
    assert load_bundles(incomplete, CPU).precision is Precision.FP32
    int8 = CPU.model_copy(update={"precision": Precision.INT8})
    with pytest.raises(
        BundleError, match="int8 is not available for every bundle; available: fp32"
    ):
        load_bundles(incomplete, int8)


def test_unknown_operating_point_lists_the_available_ones(tmp_path):
    write_bundles(tmp_path)
    with pytest.raises(UsageError, match="available: balanced, specific"):
        load_bundles(tmp_path, CPU.model_copy(update={"operating_point": "unknown"}))
    weights = load_bundles(tmp_path, CPU.model_copy(update={"operating_point": "specific"}))
    assert weights.points["hand"].threshold == 0.95
