"""Fused graphs: equality with their stages, refusal of differences, the contract."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from bundles import GATE, SPEC, for_all, paint, spec, standard_specs
from onnx import numpy_helper
from PIL import Image
from pydantic import ValidationError
from tiny_networks import FINE_PX, ensemble, write_bundles

from pipeline.bundle import Kind, Precision
from pipeline.config import RunConfig
from pipeline.domain import REGIONS
from pipeline.engine import run
from pipeline.errors import BundleError, ConfigError, ExportRefusedError, UsageError
from pipeline.fused_contract import FusedSpec, columns_of
from pipeline.progress import Silent
from pipeline.runtime.graph import Graph
from pipeline.runtime.network import Batch
from pipeline.runtime.session import load_bundles
from pipeline.weights.manifest import Manifest, read_manifest, read_verified
from stages.export import fused as fused_module
from stages.export.fused import Order, Parity, fuse_weights
from stages.export.graph_compose import fuse_graphs

CPU = RunConfig(device="cpu", intra_op_threads=1, looks=1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Nine generated pictures, one more than a batch, and two files that are not pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for n in range(9):
        regions, fractures = (
            dict(zip(REGIONS, row, strict=True)) for row in random.uniform(0.2, 0.9, (2, 3))
        )
        picture = paint(regions, fractures, strange=0.1 * n)
        Image.fromarray(picture).save(folder / f"{n}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (folder / "notes.txt").write_text("no picture")
    return folder


def fused(tmp_path, pictures, specs, precisions=(), **changes):
    """Write and fuse a weights folder; return it, the fused folder and the parity rows."""
    weights = write_bundles(tmp_path / "weights", specs)
    order = Order(precisions, pictures, tmp_path / "fused", **changes)
    rows = fuse_weights(weights, order, Silent())
    return weights, order.target, rows


def complete(name, kind=Kind.FRACTURE, **changes):
    return spec(name, kind, **{"input": "image", "trunk": None, **changes})


def typed(name):
    types = {"labels": ["a"], "activation": "sigmoid", "temperature": [1.0], "bias": [0.0]}
    return spec(name, Kind.FRACTURE, types=types)


def two_trunks():
    """The shoulder has a separate trunk, the elbow a complete network."""
    trunk, region, _, hand, _ = standard_specs()
    other_trunk = {"trunk": "b" * 64}
    return [
        trunk, region, hand, complete("fracture-elbow"),
        spec("trunk-fracture-shoulder", Kind.TRUNK, **other_trunk),
        spec("fracture-shoulder", Kind.FRACTURE, temperature=(2.0,), bias=(0.5,), **other_trunk),
    ]  # fmt: skip


def only_complete():
    """Complete networks on a larger canvas; their maps are finer than those of heads."""
    canvas = SPEC.model_copy(update={"height_px": FINE_PX, "width_px": FINE_PX})
    names = [f"fracture-{region}" for region in REGIONS]
    return [
        complete("region", Kind.REGION, preprocess=canvas),
        *(complete(name, preprocess=canvas) for name in names),
    ]


@pytest.mark.parametrize(
    "specs",
    [
        standard_specs,
        two_trunks,
        only_complete,
        for_all,
        lambda: standard_specs()[:3],
        lambda: [*standard_specs()[:4], typed("fracture-shoulder")],
    ],
    ids=[
        *("heads", "two trunks and a complete network", "complete", "no router", "one specialist"),
        "types omitted",
    ],
)
def test_fused_graph_equals_the_stages(tmp_path, pictures, specs):
    weights, target, (row,) = fused(tmp_path, pictures, specs())
    assert row.pictures == 9
    assert row.passed
    staged, whole = load_bundles(weights, CPU), load_bundles(target, CPU)
    assert list(whole.fracture) == list(staged.fracture)
    assert whole.points == staged.points
    assert whole.preprocessings == staged.preprocessings
    canvas = whole.preprocessings[0]
    random = np.random.default_rng(1)
    shape = (1, canvas.height_px, canvas.width_px)
    canvases = [{canvas: random.random(shape, np.float32)} for _ in range(5)]
    batches = Batch(canvases, staged.trunks), Batch(canvases, whole.trunks)
    for stage, inside in zip(staged.stages, whole.stages, strict=True):
        assert inside.spec.name == stage.spec.name
        for rows in (None, [1, 3]):
            expected, actual = (
                s.look(b, rows, evidence=True)
                for s, b in zip((stage, inside), batches, strict=True)
            )
            assert actual.labels == expected.labels
            for port in ("logits", "probabilities", "evidence"):
                np.testing.assert_allclose(
                    getattr(actual, port), getattr(expected, port), atol=1e-4
                )
            assert (actual.density is None) == (stage.spec.kind is not Kind.REGION)
            if actual.density is not None:
                assert expected.density is not None
                np.testing.assert_allclose(actual.density, expected.density, atol=1e-5)


def test_outcomes_are_equal_except_for_the_digests(tmp_path, pictures):
    weights, target, _ = fused(tmp_path, pictures, two_trunks())
    paths = sorted(pictures.iterdir())
    of_stages, of_fused = (
        list(run(paths, load_bundles(folder, CPU), CPU)) for folder in (weights, target)
    )
    (entry,) = read_manifest(target).bundles
    assert any("unlike anything" in str(outcome.error) for outcome in of_stages)
    for one, other in zip(of_stages, of_fused, strict=True):
        assert (other.status, other.error) == (one.status, one.error)
        assert [f.region for f in other.findings] == [f.region for f in one.findings]
        if one.region is not None:
            assert other.region.density == pytest.approx(one.region.density, abs=1e-5)
            assert other.region.density_threshold == GATE.threshold
        for a, b in zip(one.findings, other.findings, strict=True):
            assert b.probability == pytest.approx(a.probability, abs=1e-4)
            assert (b.verdict, b.operating_point) == (a.verdict, a.operating_point)
        digests = {"fused": entry.sha256} if one.bundle_digests else {}
        assert other.bundle_digests == digests


def test_graph_runs_once_per_batch_for_all_stages(tmp_path, pictures, monkeypatch):
    _, target, _ = fused(tmp_path, pictures, standard_specs())
    whole = load_bundles(target, CPU)
    batch_sizes = []
    original = Graph.run

    def counted(self, names, inputs):
        batch_sizes.append(len(inputs))
        return original(self, names, inputs)

    monkeypatch.setattr(Graph, "run", counted)
    list(run(sorted(pictures.glob("?.png")), whole, CPU.model_copy(update={"batch_size": 4})))
    # One run for each batch, for any division of the nine pictures into batches.
    assert (sum(batch_sizes), max(batch_sizes) <= 4) == (9, True)


@pytest.mark.parametrize("precision", Precision)
def test_resnets_are_fused_in_every_precision(project, data, tmp_path, precision):
    order = Order((precision,), data / "images", tmp_path / "fused")
    (row,) = fuse_weights(project / "weights", order, Silent())
    assert row.passed
    assert row.pictures == fused_module.PICTURES
    assert row.difference <= 1e-4
    assert row.evidence <= 1e-4
    (entry,) = read_manifest(order.target).bundles
    model = onnx.load_from_string(read_verified(order.target, entry))
    assert {opset.domain for opset in model.opset_import} == {""}
    names = {tensor.name for tensor in model.graph.initializer}
    assert sum(name.endswith("/temperature") for name in names) == 4
    assert len({name.partition("/")[0] for name in names}) == 5  # one trunk for four heads
    for place in (str(project).encode(), b"site-packages"):
        assert place not in model.SerializeToString()


def test_contract_contains_columns_stages_and_sources(tmp_path, pictures):
    weights, target, _ = fused(tmp_path, pictures, two_trunks())
    (entry,) = read_manifest(target).bundles
    model = onnx.load_from_string(read_verified(target, entry))
    spec = FusedSpec.from_metadata({p.key: p.value for p in model.metadata_props}, "x")
    assert spec.columns == {"region": REGIONS, "fracture": ("elbow", "hand", "shoulder")}
    assert [port.name for port in model.graph.output] == list(spec.outputs)
    assert spec.sources == {e.name: e.sha256 for e in read_manifest(weights).bundles}
    before = {stage.spec.name: stage.spec for stage in load_bundles(weights, CPU).stages}
    for stage in spec.stages:
        changes = {"input": "image", "trunk": None}
        assert stage == before[stage.name].model_copy(update=changes)


def test_maps_of_different_sizes_are_omitted_with_a_warning(tmp_path, pictures, caplog):
    specs = standard_specs()
    specs[3] = spec("fracture-hand", Kind.FRACTURE, heatmap=False)
    with caplog.at_level(logging.WARNING):
        _, target, _ = fused(tmp_path, pictures, specs)
    message = "no fracture_evidence: the specialists' maps differ in size (fracture-elbow (4, 4), "
    assert message + "fracture-hand none" in caplog.text
    whole = load_bundles(target, CPU)
    batch = Batch([{SPEC: np.zeros((1, 32, 32), np.float32)}], {})
    has_map = [stage.look(batch, evidence=True).evidence is not None for stage in whole.stages]
    assert has_map == [True, False, False, False]


def other_canvas():
    specs = standard_specs()
    canvas = SPEC.model_copy(update={"pad_value": 0.5})
    return [*specs[:4], complete("fracture-shoulder", preprocess=canvas)]


def with_ensemble():
    trunk, region, *_ = standard_specs()
    members = [spec(f"fracture-hand-{n}", Kind.FRACTURE, region="hand") for n in (1, 2)]
    return [trunk, region, *members, ensemble("fracture-hand", members)]


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (other_canvas, "the stages have different preprocessing (trunk: {"),
        (
            with_ensemble,
            "fracture-hand is an ensemble of fracture-hand-1, fracture-hand-2, expected",
        ),
        (lambda: standard_specs()[1:], "the weights folder has none"),
    ],
)
def test_stages_that_cannot_be_fused_are_refused(tmp_path, pictures, specs, message):
    with pytest.raises(BundleError) as caught:
        fused(tmp_path, pictures, specs())
    assert message in str(caught.value)
    assert not (tmp_path / "fused").exists()


def test_different_operator_set_versions_are_refused(tmp_path, pictures, monkeypatch):
    original = onnx.load_from_string
    models = []

    def load(content):
        model = original(content)
        models.append(model)
        model.opset_import[0].version = 16 + len(models) % 2
        return model

    monkeypatch.setattr(onnx, "load_from_string", load)
    with pytest.raises(BundleError, match=r"operator set versions \(onnx 16, onnx 17\)"):
        fused(tmp_path, pictures, standard_specs())


def test_missing_precision_and_missing_pictures_are_refused(tmp_path, pictures):
    specs = standard_specs()
    specs[0] = specs[0].model_copy(update={"precision": Precision.FP16})
    with pytest.raises(BundleError, match="no precision includes every bundle"):
        fused(tmp_path / "a", pictures, specs)
    with pytest.raises(
        BundleError, match="int8 is not available for every bundle; available: fp32"
    ):
        fused(tmp_path / "b", pictures, standard_specs(), (Precision.INT8,))
    (tmp_path / "none").mkdir()
    (tmp_path / "none/a.txt").write_text("no picture")
    with pytest.raises(ConfigError, match="no readable picture"):
        fused(tmp_path / "c", tmp_path / "none", standard_specs())


def test_non_empty_target_is_refused(tmp_path, pictures):
    (tmp_path / "fused").mkdir()
    (tmp_path / "fused/mine.txt").write_text("x")
    with pytest.raises(UsageError, match="fused: the folder is not empty"):
        fused(tmp_path, pictures, standard_specs())
    (tmp_path / "triton/fxpipe/1").mkdir(parents=True)
    with pytest.raises(UsageError, match="fxpipe: the folder is not empty"):
        fused(tmp_path / "a", pictures, standard_specs(), triton=tmp_path / "triton")
    assert not (tmp_path / "a/fused").exists()


@pytest.mark.parametrize(
    ("name", "shift"),
    [
        ("region/offset", 0.5),
        ("region/familiar", 0.5),
        ("fracture-hand/offset", 0.5),
        ("x", np.nan),
    ],
)
def test_graph_with_other_outputs_is_refused(tmp_path, pictures, monkeypatch, name, shift):
    def fuse_wrongly(parts, contract):
        model = onnx.load_from_string(fuse_graphs(parts, contract))
        for tensor in model.graph.initializer:
            if tensor.name == name or (name == "x" and tensor.name.endswith("hand/bias")):
                value = numpy_helper.to_array(tensor) + np.float32(shift)
                tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        return model.SerializeToString()

    monkeypatch.setattr(fused_module, "fuse_graphs", fuse_wrongly)
    with pytest.raises(ExportRefusedError, match="nothing was written:\n  fused fp32: 9 pictures"):
        fused(tmp_path, pictures, standard_specs(), triton=tmp_path / "triton")
    assert not (tmp_path / "fused").exists()
    assert not (tmp_path / "triton").exists()


@pytest.mark.parametrize(
    ("change", "passed"),
    [
        ({}, True),
        ({"flips": 1}, False),
        *(({name: 0.011}, False) for name in ("difference", "alone", "evidence", "density")),
        *(({name: float("nan")}, False) for name in ("difference", "alone", "evidence", "density")),
    ],
)
def test_parity_checks_every_difference(change, passed):
    values = {
        "precision": Precision.FP16, "pictures": 9, "difference": 0.01, "alone": 0.01,
        "evidence": 0.01, "density": 0.01, "decisions": 9, "flips": 0, "limit": 0.01,
    }  # fmt: skip
    row = Parity(**{**values, **change})
    assert row.passed is passed
    assert str(row).endswith("passed" if passed else "REFUSED")


def test_altered_file_is_refused_before_parsing(tmp_path, pictures):
    _, target, _ = fused(tmp_path, pictures, standard_specs())
    file = target / "fused/fp32.onnx"
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="the manifest lists"):
        load_bundles(target, CPU)


def test_fused_graph_must_be_the_only_bundle(tmp_path, pictures):
    weights, target, _ = fused(tmp_path, pictures, standard_specs())
    both = [*read_manifest(weights).bundles, *read_manifest(target).bundles]
    with pytest.raises(ValidationError, match="a fused graph must be the only bundle"):
        Manifest(bundles=tuple(both))
    with pytest.raises(BundleError, match="found a fused graph, expected a weights folder"):
        fuse_weights(target, Order((), pictures, tmp_path / "again"), Silent())


def contract(*stages, **changes):
    in_graph = {"input": "image", "trunk": None}
    stages = tuple(stage.model_copy(update=in_graph) for stage in stages)
    values = {
        "name": "fused", "precision": "fp32", "preprocess": SPEC, "stages": stages,
        "columns": columns_of(stages), "sources": {},
    }  # fmt: skip
    return FusedSpec(**{**values, **changes})


@pytest.mark.parametrize(
    ("stages", "changes", "message"),
    [
        (standard_specs()[2:0:-1], {}, "at most one router, then one or more specialists"),
        (standard_specs()[1:2], {}, "at most one router, then one or more specialists"),
        ([], {"stages": (spec("trunk", Kind.TRUNK),)}, "does not match any of the expected"),
        ([*standard_specs()[1:4], typed("fracture-shoulder")], {}, "one look and no types"),
        (standard_specs()[1:], {"precision": "int8"}, "every stage must have the precision"),
        (standard_specs()[1:], {"stages": tuple(standard_specs()[1:])}, "must be the image"),
        (
            [*standard_specs()[1:4], spec("fracture-shoulder", Kind.FRACTURE, heatmap=False)],
            {},
            "all specialists or none must have evidence",
        ),
        (
            standard_specs()[1:],
            {"columns": {"region": REGIONS, "fracture": REGIONS[::-1]}},
            "the stages have",
        ),
    ],
)
def test_invalid_contract_is_refused(stages, changes, message):
    with pytest.raises(ValidationError, match=message):
        contract(*stages, **changes)


def test_contract_reads_as_written_to_the_metadata():
    whole = contract(*standard_specs()[1:])
    assert FusedSpec.from_metadata(whole.to_metadata(), "x") == whole
    with pytest.raises(BundleError, match="x: unreadable contract"):
        FusedSpec.from_metadata(standard_specs()[1].to_metadata(), "x")
