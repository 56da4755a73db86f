"""Ensembles: the mean of their members, which must be exactly the files of the contract."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundles import SPEC, probability, spec, standard_specs, write_png
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from row_counts import count_rows
from tiny_networks import ensemble, network, write_bundles

from pipeline.bundle import BundleSpec, FractureSpec, Kind
from pipeline.config import RunConfig
from pipeline.domain import Array, StageOutput
from pipeline.engine import run
from pipeline.errors import BundleError
from pipeline.outcome import Outcome, Status
from pipeline.preprocess import Fit, preprocess
from pipeline.runtime.ensemble_network import onto_grid, why_no_heatmap
from pipeline.runtime.network import Batch, Network, Opened
from pipeline.runtime.providers import open_session
from pipeline.runtime.session import Weights, load_bundles
from pipeline.weights.manifest import read_manifest, write_manifest
from stages.export.ensemble import mean_graph

CPU = RunConfig(device="cpu", intra_op_threads=1, workers=2, batch_size=4)
FINE = SPEC.model_copy(update={"height_px": 128, "width_px": 128})


def member(place: int, **changes: object) -> FractureSpec:
    made = spec(f"fracture-hand-{place}", Kind.FRACTURE, **{"region": "hand", **changes})
    assert isinstance(made, FractureSpec)
    return made


def head() -> FractureSpec:
    """A member on the shared trunk."""
    return member(1)


def complete(**changes: object) -> FractureSpec:
    """A complete network with another canvas, a finer grid and another calibration."""
    whole = {"input": "image", "trunk": None, "preprocess": FINE}
    return member(2, **{**whole, "temperature": (2.0,), "bias": (0.5,), **changes})


def for_any() -> FractureSpec:
    """A member for all regions, which reads another cell."""
    return member(3, region="all", temperature=(4.0,))


def folder(place: Path, members: Sequence[BundleSpec], **changes: object) -> Path:
    """A weights folder in which the hand specialist is an ensemble of these members."""
    trunk, router, elbow, _, shoulder = standard_specs()
    whole = ensemble("fracture-hand", members, **changes)
    return write_bundles(place, [trunk, router, elbow, shoulder, *members, whole])


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Weights:
    place = tmp_path_factory.mktemp("weights")
    return load_bundles(folder(place, [head(), complete(), for_any()]), CPU)


def judge(paths: list[Path], weights: Weights, **changes: object) -> list[Outcome]:
    return list(run(paths, weights, CPU.model_copy(update=changes)))


def painted(place: Path, count: int) -> list[Path]:
    cells = np.random.default_rng(0).uniform(0.2, 0.9, (count, 2)).tolist()
    return [
        write_png(place / f"{i:02}.png", {"hand": 0.9}, {"hand": hand, "all": every})
        for i, (hand, every) in enumerate(cells)
    ]


def look(weights: Weights, pixels: Array, evidence: bool = False) -> list[StageOutput]:
    """Output of the ensemble for a (H, W) picture, then that of each member."""
    arrays = {canvas: preprocess(pixels, canvas)[0] for canvas in weights.preprocessings}
    stage = weights.fracture["hand"]
    batch = Batch([arrays], weights.trunks)
    outputs = [stage.look(batch, evidence=evidence)]
    for one in stage.networks[1:]:
        assert isinstance(one, Network)
        outputs.append(one.look(batch, evidence=evidence))
    return outputs


# ---------------------------------------------------------------------------------- the mean


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(2, 6)),
        elements=st.floats(0, 1, width=32),
    )
)
def test_graph_gives_the_mean_and_finite_logits(probabilities):
    count = probabilities.shape[1]
    session, _ = open_session(mean_graph(count).SerializeToString(), "cpu", 1, "mean")
    logits, means = session.run(["logits", "probabilities"], {"members": probabilities})
    np.testing.assert_allclose(means[:, 0], probabilities.mean(1), atol=1e-6)
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), means, atol=1e-6)


def test_probability_is_the_mean_of_the_calibrated_members(weights, tmp_path):
    pixels = np.random.default_rng(1).uniform(0, 1, (50, 40)).astype(np.float32)
    combined, *members = look(weights, pixels)
    assert combined.labels == ("fracture",)
    alone = [float(m.probabilities[0, 0]) for m in members]
    assert len({round(p, 3) for p in alone}) == 3
    assert float(combined.probabilities[0, 0]) == pytest.approx(np.mean(alone), abs=1e-6)
    path = write_png(tmp_path / "a.png", {"hand": 0.9}, {"hand": 0.6, "all": 0.2})
    (outcome,) = judge([path], weights)
    (finding,) = outcome.findings
    z = np.log(probability(153 / 255) / (1 - probability(153 / 255)))
    z_all = np.log(probability(51 / 255) / (1 - probability(51 / 255)))
    expected = np.mean([1 / (1 + np.exp(-x)) for x in (z, z / 2 + 0.5, z_all / 4)])
    assert finding.region == "hand"
    assert finding.probability == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_probabilities_do_not_depend_on_batch_size(weights, tmp_path, size):
    paths = painted(tmp_path, 9)
    reference = judge(paths, weights, batch_size=4)
    for one, other in zip(judge(paths, weights, batch_size=size), reference, strict=True):
        a, b = one.findings[0].probability, other.findings[0].probability
        assert a == pytest.approx(b, abs=1e-6)


def test_outcome_lists_every_bundle_that_contributed(weights, tmp_path):
    (outcome,) = judge(painted(tmp_path, 1), weights)
    names = {f"fracture-hand{mark}" for mark in ("", "-1", "-2", "-3")}
    assert set(outcome.bundle_digests) == {"trunk", "region", *names}
    digests = {network.spec.name: network.digest for network in weights.networks}
    assert all(digests[name] == digest for name, digest in outcome.bundle_digests.items())


def test_member_is_not_a_separate_specialist(weights):
    assert set(weights.fracture) == {"elbow", "hand", "shoulder"}
    assert [n.spec.name for n in weights.networks].count("fracture-hand-1") == 1


def test_trunk_runs_once_and_members_only_on_their_pictures(weights, tmp_path, monkeypatch):
    rows = count_rows(monkeypatch)
    regions = [{"hand": 0.9}, {"elbow": 0.9}, {"hand": 0.9}, {}]
    judge([write_png(tmp_path / f"{i}.png", r, {}) for i, r in enumerate(regions)], weights)
    assert rows == {
        "trunk": 4, "region": 4, "fracture-elbow": 1,
        **{f"fracture-hand-{k}": 2 for k in (1, 2, 3)}, "fracture-hand": 2,
    }  # fmt: skip


@pytest.mark.parametrize("wrong", ["fracture-hand-2", "fracture-hand"])
def test_member_output_nan_fails_the_picture(weights, tmp_path, monkeypatch, wrong):
    original = Opened.evaluate

    def broken(self: Opened, names: list[str], inputs: np.ndarray) -> list[np.ndarray]:
        values = original(self, names, inputs)
        return [v * np.nan for v in values] if self.spec.name == wrong else values

    monkeypatch.setattr(Opened, "evaluate", broken)
    (outcome,) = judge(painted(tmp_path, 1), weights)
    assert (outcome.status, outcome.findings) == (Status.FAILED, ())
    assert "hand specialist gave no number" in str(outcome.error)


# ------------------------------------------------------------------------------------- heatmaps


def test_evidence_is_the_mean_contribution_on_the_finest_grid(weights):
    pixels = np.random.default_rng(1).uniform(0, 1, (64, 64)).astype(np.float32)
    combined, *members = look(weights, pixels, evidence=True)
    coarse, fine, other = (m.evidence for m in members if m.evidence is not None)
    assert combined.evidence is not None
    assert coarse.shape == other.shape == (1, 1, 4, 4)
    assert combined.evidence.shape == fine.shape == (1, 1, 8, 8)
    expected = (onto_grid(coarse, (8, 8)) + fine / 2 + onto_grid(other, (8, 8)) / 4) / 3
    np.testing.assert_allclose(combined.evidence, expected, rtol=1e-5)
    assert look(weights, pixels)[0].evidence is None


def test_ensemble_has_no_heatmap_if_a_member_has_none(tmp_path):
    members = [head(), complete(heatmap=False)]
    weights = load_bundles(folder(tmp_path / "a", members, heatmap=False), CPU)
    pixels = np.random.default_rng(1).uniform(0, 1, (64, 64)).astype(np.float32)
    combined, *_ = look(weights, pixels, evidence=True)
    assert combined.evidence is None
    with pytest.raises(BundleError, match="declares a heatmap, but fracture-hand-2 has no evid"):
        load_bundles(folder(tmp_path / "b", members), CPU)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"height_px": 64, "width_px": 64, "pad_value": 0.5}, None),
        ({"height_px": 64}, "squash to 64 x 32 px, and squash to 32 x 32 px"),
        (
            {"fit": Fit.PAD},
            "fracture-hand-2 covers a different part of the picture than fracture-hand-1",
        ),
    ],
)
def test_heatmap_needs_canvases_with_the_same_content(changes, reason):
    other = member(2, preprocess=SPEC.model_copy(update=changes))
    actual = why_no_heatmap([head(), other])
    assert actual is None if reason is None else reason in str(actual)


def test_evidence_on_another_grid_is_interpolated():
    maps = np.random.default_rng(0).normal(size=(2, 1, 5, 3)).astype(np.float32)
    np.testing.assert_array_equal(onto_grid(maps, (5, 3)), maps)
    flat = onto_grid(np.full((1, 1, 3, 4), 2.5, np.float32), (7, 9))
    np.testing.assert_allclose(flat, 2.5, rtol=1e-6)
    centres = np.array([0.125, 0.375, 0.625, 0.875], np.float32)  # x, for four columns
    ramp = np.tile(centres, (1, 1, 4, 1))
    fine = onto_grid(ramp, (8, 8))[0, 0, 3]
    np.testing.assert_allclose(fine[1:-1], (np.arange(1, 7) + 0.5) / 8, rtol=1e-6)
    assert (fine[0], fine[-1]) == (0.125, 0.875)  # no extrapolation beyond the outer centres


# ----------------------------------------------------------------------------- refused ensembles


def test_changed_member_is_refused(tmp_path):
    members = [head(), complete()]
    whole = ensemble("fracture-hand", members)
    changed = [head(), complete(bias=(0.6,))]
    specs = [*standard_specs()[:2], *changed, whole]
    with pytest.raises(BundleError, match="its thresholds are not valid") as caught:
        load_bundles(write_bundles(tmp_path, specs), CPU)
    assert "fracture-hand was created for a member fracture-hand-2" in str(caught.value)
    assert "fxpipe ensemble" in caught.value.hint


@pytest.mark.parametrize(
    ("members", "missing", "message"),
    [
        ([head(), complete()], 1, "its member fracture-hand-2 is not in the weights folder"),
        (
            [head(), complete(target="abnormality")],
            None,
            r"predicts abnormality \(fracture\), expected",
        ),
        (
            [head(), complete(labels=("break",))],
            None,
            r"predicts fracture \(break\), expected fracture",
        ),
        ([head(), complete(region="elbow")], None, "judges elbow, expected hand or all"),
        ([head(), member(2, preprocess=FINE)], None, "different preprocessing than its trunk"),
        ([head(), member(2, trunk="b" * 64)], None, "belongs to trunk bbbbbbbbbbbb"),
    ],
)
def test_members_that_do_not_match_are_refused(tmp_path, members, missing, message):
    specs = [*standard_specs()[:2], *members, ensemble("fracture-hand", members)]
    if missing is not None:
        specs.remove(members[missing])
    with pytest.raises(BundleError, match=message):
        load_bundles(write_bundles(tmp_path, specs), CPU)


def test_ensemble_of_ensembles_is_refused(tmp_path):
    inner = ensemble("fracture-hand-4", [head(), complete()], region="hand")
    outer = ensemble("fracture-hand", [for_any(), inner])
    specs = [*standard_specs()[:2], head(), complete(), for_any(), inner, outer]
    with pytest.raises(BundleError, match="fracture-hand-4 is an ensemble itself"):
        load_bundles(write_bundles(tmp_path, specs), CPU)


def test_ensemble_of_an_older_version_opens(tmp_path):
    """Old manifests and contracts call it a fracture stage, and have the fields of every kind."""
    members = [head(), complete()]
    place = write_bundles(
        tmp_path, [*standard_specs()[:2], *members, ensemble("fracture-hand", members)]
    )
    entries = {(e.name, e.precision): e for e in read_manifest(place).bundles}
    key, entry = next((k, e) for k, e in entries.items() if e.kind is Kind.ENSEMBLE)
    model = onnx.load(place / entry.file)
    contract = json.loads(model.metadata_props[0].value)
    contract |= {"kind": "fracture", "schema_version": 2, "trunk": None, "closer": None}
    contract |= {"route_thresholds": {}, "density": None}
    model.metadata_props[0].value = json.dumps(contract)
    content = model.SerializeToString()
    (place / entry.file).write_bytes(content)
    entries[key] = entry.model_copy(
        update={
            "kind": Kind.FRACTURE,
            "sha256": hashlib.sha256(content).hexdigest(),
            "size_bytes": len(content),
        }
    )
    write_manifest(place, entries)
    weights = load_bundles(place, CPU)
    assert [part.bundle for part in weights.fracture["hand"].networks] == [
        "fracture-hand", "fracture-hand-1", "fracture-hand-2",
    ]  # fmt: skip


def test_mean_over_another_number_of_members_is_refused():
    whole = ensemble("fracture-hand", [head(), complete()])
    three = ensemble("fracture-hand", [head(), complete(), for_any()])
    session, _ = open_session(network(three), "cpu", 1, "mean")
    with pytest.raises(BundleError, match=r"members is .*, expected tensor\(float\) \['N', 2\]"):
        Network(whole, "0" * 64, session)


def test_error_for_two_specialists_suggests_an_ensemble(tmp_path):
    specs = [*standard_specs(), head()]
    with pytest.raises(BundleError, match="two specialists for hand") as caught:
        load_bundles(write_bundles(tmp_path, specs), CPU)
    assert "fxpipe ensemble" in caught.value.hint
