"""Closer looks of a specialist: crops at the strongest evidence, and the combined decision."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from bundles import SPEC, paint, spec, standard_specs, write_png
from pydantic import ValidationError
from tiny_networks import write_bundles

from pipeline.bundle import BundleSpec, CloserLooks, Kind
from pipeline.config import RunConfig
from pipeline.domain import Array
from pipeline.engine import run
from pipeline.errors import UsageError
from pipeline.looks import part, places
from pipeline.runtime.closer_looks import Closer
from pipeline.runtime.network import Batch
from pipeline.runtime.session import load_bundles

CPU = RunConfig(device="cpu", intra_op_threads=1)
LARGER = SPEC.model_copy(update={"height_px": 64, "width_px": 64})


def closer_spec(name: str = "fracture-hand", **changes: object) -> BundleSpec:
    plain = spec(name, Kind.FRACTURE)
    points = {
        key: point.model_copy(update={"threshold": 0.99, "doubt_below": 0.97})
        for key, point in plain.operating_points.items()
    }
    looks = {"canvas": LARGER, "count": 2, "whole": 0.25, "close": 0.5, "bias": -1.0}
    closer = CloserLooks.model_validate({**looks, "operating_points": points, **changes})
    return spec(name, Kind.FRACTURE, closer=closer)


def pixels(fractures: Mapping[str, float]) -> Array:
    """A preprocessed picture of a hand, (1, 32, 32) float32 in [0, 1]."""
    return (paint({"hand": 0.9}, fractures)[None] / 255).astype(np.float32)


@pytest.fixture
def weights(tmp_path):
    others = [s for s in standard_specs() if s.name != "fracture-hand"]
    return write_bundles(tmp_path / "weights", [*others, closer_spec()])


def test_decision_combines_all_looks(weights):
    opened = load_bundles(weights, CPU)
    stage = opened.fracture["hand"]
    assert isinstance(stage, Closer)
    assert LARGER in opened.preprocessings
    picture = pixels({"hand": 0.7})
    larger = np.kron(picture, np.ones((1, 2, 2), np.float32))
    batch = Batch([{SPEC: picture, LARGER: larger}] * 2, opened.trunks)
    combined = stage.look(batch, [1], evidence=True)

    single = load_bundles(weights, CPU.model_copy(update={"looks": 1})).fracture["hand"]
    first = single.look(batch, [1], evidence=True)
    cut = [part(larger, place, SPEC) for place in places(first.evidence[0, 0], 2, LARGER, SPEC)]
    near = single.look(batch.parts(SPEC, cut))
    logit = 0.25 * first.logits[0, 0] + 0.5 * near.logits.max()
    assert combined.logits[0, 0] == pytest.approx(logit, abs=1e-5)
    assert combined.probabilities[0, 0] == pytest.approx(1 / (1 + np.exp(1 - logit)), abs=1e-6)
    assert (combined.evidence >= first.evidence).all()
    assert combined.evidence.shape == first.evidence.shape


def test_types_are_taken_from_the_look_with_the_highest_logit(tmp_path):
    types = {"labels": ["a", "b"], "activation": "sigmoid", "temperature": [1, 2], "bias": [0, 1]}
    typed = closer_spec().changed(types=types)
    others = [s for s in standard_specs() if s.name != "fracture-hand"]
    opened = load_bundles(write_bundles(tmp_path / "weights", [*others, typed]), CPU)
    assert opened.has_types
    stage = opened.fracture["hand"]
    low, high = pixels({"hand": 0.3}), pixels({"hand": 0.8})
    for picture, type_cell in ((low, 0.9), (high, 0.2)):
        picture[:, 16:24, 8:16] = type_cell  # type a; the cell of type b does not change
    single = load_bundles(tmp_path / "weights", CPU.model_copy(update={"looks": 1}))
    for first, larger in ((low, high), (high, low)):
        big = np.kron(larger, np.ones((1, 2, 2), np.float32))
        batch = Batch([{SPEC: first, LARGER: big}], opened.trunks)
        alone = single.fracture["hand"].look(batch, evidence=True)
        cut = [part(big, place, SPEC) for place in places(alone.evidence[0, 0], 2, LARGER, SPEC)]
        near = single.fracture["hand"].look(batch.parts(SPEC, cut))
        logits = [alone.logits[0, 0], *near.logits[:, 0]]
        type_probabilities = np.concatenate([alone.types.probabilities, near.types.probabilities])
        actual = stage.look(batch).types
        assert actual.labels == ("a", "b")
        np.testing.assert_array_equal(
            actual.probabilities[0], type_probabilities[int(np.argmax(logits))]
        )
        np.testing.assert_allclose(
            alone.types.probabilities[0, 0], 1 / (1 + np.exp(-alone.types.logits[0, 0])), rtol=1e-4
        )


def test_thresholds_depend_on_the_number_of_looks(weights, tmp_path):
    picture = write_png(tmp_path / "in/a.png", {"hand": 0.9}, {"hand": 0.9})
    (all_looks,) = run([picture], load_bundles(weights, CPU), CPU)
    one = CPU.model_copy(update={"looks": 1})
    (single,) = run([picture], load_bundles(weights, one), one)
    assert all_looks.findings[0].operating_point.threshold == 0.99
    assert single.findings[0].operating_point.threshold == 0.5
    assert all_looks.findings[0].probability != single.findings[0].probability
    assert all_looks.bundle_digests == single.bundle_digests


def test_unsupported_number_of_looks_is_refused(weights):
    with pytest.raises(UsageError, match=r"looks is 2, but fracture-.* supports"):
        load_bundles(weights, CPU.model_copy(update={"looks": 2}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"canvas": SPEC.model_copy(update={"width_px": 64})}, "aspect ratio"),
        ({"canvas": LARGER.model_copy(update={"frame": "limb"})}, "same frame"),
        ({"operating_points": {}}, "operating points of the first look"),
    ],
)
def test_closer_looks_that_contradict_their_stage_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        closer_spec(**changes)


def test_region_stage_cannot_have_closer_looks():
    with pytest.raises(ValidationError, match="closer"):
        spec("region", Kind.REGION, closer=closer_spec().closer)
