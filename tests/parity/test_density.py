"""The density gate in the graph gives the values of the arrays, in every precision."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from pipeline.bundle import Precision
from pipeline.runtime.providers import open_session
from stages.export.exported_head import Head
from stages.export.int8 import only_for
from stages.export.onnx_export import derive, to_onnx
from stages.network.density import DensityGate, density_in, fit_density, similarity
from stages.network.model import Network, Trunk
from stages.settings import DensityConfig

CUT = "layer4"
OUTPUTS = ("logits", "probabilities", "evidence", "density")
PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    labels = ("elbow", "hand", "shoulder")
    return Network(labels, "conv2", "stem", arch="resnet10t", canvas_px=(64, 64)).eval()


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).random((24, 1, 64, 64), np.float32)


def depths(network: Network, pictures: np.ndarray, cut: str) -> np.ndarray:
    with torch.inference_mode():
        return network.depths(torch.from_numpy(pictures), cut).numpy()


def fit(network: Network, pictures: np.ndarray, cut: str):
    rows = depths(network, pictures, cut)
    return fit_density(rows[:16], rows[16:], DensityConfig(dimensions=6, neighbours=3))


@pytest.fixture(scope="module")
def fitted(network, pictures):
    return fit(network, pictures, CUT)


@pytest.fixture(scope="module")
def features(network, pictures):
    with torch.inference_mode():
        return Trunk(network, CUT).eval()(torch.from_numpy(pictures)).numpy()


@pytest.fixture(scope="module")
def graphs(network, fitted, features):
    head = Head(network, CUT, range(3), [1.0] * 3, [0.0] * 3, DensityGate(fitted))
    graph = to_onnx(head, features[:1], "features", OUTPUTS)
    singles = [features[i : i + 1] for i in range(8)]
    return {precision: derive(graph, "features", singles, precision) for precision in PRECISIONS}


def run(graph: onnx.ModelProto, name: str, inputs: np.ndarray) -> np.ndarray:
    session, _ = open_session(graph.SerializeToString(), "cpu", 1, "test")
    (density,) = session.run(["density"], {name: inputs})
    return density


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [(Precision.FP32, 1e-4), (Precision.FP16, 5e-3), (Precision.INT8, 5e-2)],
)
def test_graph_and_arrays_give_the_same_density(
    network, pictures, fitted, features, graphs, precision, tolerance
):
    expected = similarity(depths(network, pictures, CUT), fitted)
    density = run(graphs[precision], "features", features)
    assert density.shape == (24,)
    assert density.dtype == np.float32
    np.testing.assert_allclose(density, expected, atol=tolerance)
    single = [run(graphs[precision], "features", features[i : i + 1])[0] for i in range(3)]
    np.testing.assert_allclose(single, density[:3], atol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_gate_is_in_single_precision(graphs, fitted, precision):
    graph = graphs[precision]
    nodes = only_for(graph, "density")
    assert {"MatMul", "TopK"} <= {node.op_type for node in nodes}
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in nodes}
    initializers = {i.name: numpy_helper.to_array(i) for i in graph.graph.initializer}
    used = {name for node in nodes for name in node.input} & set(initializers)
    largest = [initializers[name] for name in used if initializers[name].size > 6]
    assert sorted(array.size for array in largest) == sorted(
        [fitted.projection.size, fitted.references.size]
    )
    assert all(array.dtype == np.float32 for array in largest)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_gate_is_read_back_from_the_float_graph(graphs, fitted, precision):
    gate = density_in(graphs[precision], fitted.contract)
    for name in ("projection", "references"):
        np.testing.assert_array_equal(getattr(gate, name), getattr(fitted, name))


def test_density_of_features_that_are_not_finite_is_not_finite(graphs, features):
    broken = features.copy()
    broken[1, 0, 0, 0] = np.nan
    broken[2] = np.inf
    density = run(graphs[Precision.FP32], "features", broken)
    assert np.isfinite(density).tolist()[:4] == [True, False, False, True]


def test_gate_of_a_network_without_a_cut_uses_the_last_map(pictures):
    torch.manual_seed(0)
    network = Network(
        ("elbow", "hand", "shoulder"), "conv2", "stem", arch="cnn_gap", canvas_px=(64, 64)
    ).eval()
    cut = network.place("layer4.2")
    fitted = fit(network, pictures, cut)
    assert fitted.projection.shape[0] == network.grid.features
    head = Head(network, cut, range(3), [1.0] * 3, [0.0] * 3, DensityGate(fitted))
    assert not network.heatmap
    names = tuple(name for name in OUTPUTS if name != "evidence")
    graph = to_onnx(head, pictures[:1], "image", names)
    expected = similarity(depths(network, pictures, cut), fitted)
    np.testing.assert_allclose(run(graph, "image", pictures), expected, atol=1e-4)
