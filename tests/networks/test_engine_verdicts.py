"""The engine's outcomes: routing, verdicts, fracture types."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from bundles import for_all, paint, probability, spec, standard_specs, write_png
from engine_runs import judge, open_bundles
from PIL import Image
from row_counts import count_rows

from pipeline.bundle import Kind
from pipeline.domain import ImageRef
from pipeline.outcome import Status, Verdict
from pipeline.report.record import caption


def test_outcome_of_one_picture(weights, tmp_path):
    path = write_png(tmp_path / "a.png", {"hand": 0.9}, {"hand": 0.8, "elbow": 0.9})
    (outcome,) = judge([path], weights)
    (finding,) = outcome.findings
    assert (outcome.status, finding.region, finding.target) == (Status.OK, "hand", "fracture")
    assert finding.verdict is Verdict.POSITIVE
    assert finding.probability == pytest.approx(probability(204 / 255), abs=1e-4)
    assert outcome.image == ImageRef(path, None, hashlib.sha256(path.read_bytes()).hexdigest())
    assert set(outcome.bundle_digests) == {"trunk", "region", "fracture-hand"}
    assert outcome.bundle_digests["fracture-hand"] == weights.fracture["hand"].digest
    assert outcome.elapsed_ms > 0.0


@pytest.mark.parametrize(
    ("cell", "verdict"),
    [(0.6, Verdict.POSITIVE), (0.48, Verdict.UNCERTAIN), (0.3, Verdict.NEGATIVE)],
)
@pytest.mark.parametrize("region", ["elbow", "hand", "shoulder"])
def test_each_specialist_judges_its_region(weights, tmp_path, region, cell, verdict):
    others = dict.fromkeys({"elbow", "hand", "shoulder"} - {region}, 1.0 - cell)
    path = write_png(tmp_path / "a.png", {region: 0.9}, {region: cell, **others})
    (outcome,) = judge([path], weights)
    assert [(f.region, f.verdict) for f in outcome.findings] == [(region, verdict)]


def test_picture_of_two_regions_goes_to_both_specialists(weights, tmp_path):
    path = write_png(tmp_path / "a.png", {"hand": 0.9, "elbow": 0.8}, {"hand": 0.1, "elbow": 0.9})
    (outcome,) = judge([path], weights)
    verdicts = {finding.region: finding.verdict for finding in outcome.findings}
    assert verdicts == {"elbow": Verdict.POSITIVE, "hand": Verdict.NEGATIVE}
    assert outcome.leading == next(f for f in outcome.findings if f.region == "elbow")


def test_picture_without_supported_region_gets_no_verdict(weights, tmp_path):
    path = write_png(tmp_path / "knee.png", {}, {"hand": 0.9, "elbow": 0.9, "shoulder": 0.9})
    (outcome,) = judge([path], weights)
    assert (outcome.status, outcome.findings) == (Status.UNSUPPORTED, ())
    assert "no supported region recognised" in str(outcome.error)
    assert set(outcome.bundle_digests) == {"trunk", "region"}


@pytest.mark.parametrize("grey", [0, 128, 255])
@pytest.mark.parametrize("noise", [0, 6])
def test_picture_without_contrast_gets_no_verdict(weights, tmp_path, grey, noise):
    rough = np.random.default_rng(0).integers(-noise, noise + 1, (320, 300))
    Image.fromarray(np.clip(rough + grey, 0, 255).astype(np.uint8)).save(tmp_path / "a.png")
    (outcome,) = judge([tmp_path / "a.png"], weights)
    assert (outcome.status, outcome.findings, outcome.region) == (Status.UNSUPPORTED, (), None)
    assert str(outcome.error).startswith("blank: ")
    assert [flag.name for flag in outcome.flags] == ["blank"]


def test_missing_specialist_is_reported(tmp_path):
    weights = open_bundles(tmp_path / "w", standard_specs()[:-1])  # no shoulder
    only = write_png(tmp_path / "a.png", {"shoulder": 0.9}, {"shoulder": 0.9})
    both = write_png(tmp_path / "b.png", {"shoulder": 0.9, "hand": 0.9}, {"hand": 0.9})
    first, second = judge([only, both], weights)
    assert first.status is Status.UNSUPPORTED
    assert "recognised as shoulder, which has no specialist" in str(first.error)
    assert [finding.region for finding in second.findings] == ["hand"]
    assert second.unexamined == ("shoulder",)


def test_specialist_for_all_regions_without_region_stage(tmp_path):
    weights = open_bundles(tmp_path / "w", for_all())
    paths = [
        write_png(tmp_path / "hand.png", {"hand": 0.9}, {"all": 0.8, "hand": 0.1}),
        write_png(tmp_path / "knee.png", {}, {"all": 0.2, "hand": 0.9}),
    ]
    outcomes = judge(paths, weights)
    for outcome, cell in zip(outcomes, (0.8, 0.2), strict=True):
        (finding,) = outcome.findings
        assert (outcome.status, outcome.region, finding.region) == (Status.OK, None, "all")
        assert finding.probability == pytest.approx(probability(round(cell * 255) / 255), abs=1e-4)
        assert set(outcome.bundle_digests) == {"trunk", "fracture-all"}


def test_specialist_for_all_regions_after_region_stage(tmp_path, monkeypatch):
    weights = open_bundles(
        tmp_path / "w",
        [*standard_specs()[:2], spec("fracture-hand", Kind.FRACTURE), for_all()[1]],
    )
    rows = count_rows(monkeypatch)
    region_cells = [
        {"hand": 0.9}, {"elbow": 0.9}, {"elbow": 0.9, "shoulder": 0.9},
        {"hand": 0.9, "elbow": 0.9}, {},
    ]  # fmt: skip
    paths = [
        write_png(tmp_path / f"{i}.png", regions, {}) for i, regions in enumerate(region_cells)
    ]
    outcomes = judge(paths, weights, batch_size=8)
    examined = [sorted(finding.region for finding in outcome.findings) for outcome in outcomes]
    assert examined == [["hand"], ["all"], ["all"], ["all", "hand"], []]
    assert [outcome.unexamined for outcome in outcomes] == [()] * 5
    assert outcomes[4].status is Status.UNSUPPORTED
    assert rows == {"fracture-all": 3, "fracture-hand": 2, "region": 5, "trunk": 5}


def test_types_are_reported_unless_negative(tmp_path):
    types = {"labels": ["a", "b"], "activation": "softmax", "temperature": [2, 2], "bias": [0, 0]}
    typed = spec("fracture-all", Kind.FRACTURE, types=types)
    weights = open_bundles(tmp_path / "w", [for_all()[0], typed])
    paths = []
    for place, cell in enumerate((0.8, 0.47, 0.2)):  # positive, uncertain, negative
        pixels = paint({}, {"all": cell})
        pixels[16:24, 8:16], pixels[16:24, 16:24] = 153, 128  # the cells of both types
        paths.append(tmp_path / f"{place}.png")
        Image.fromarray(pixels).save(paths[-1])
    findings = [outcome.findings[0] for outcome in judge(paths, weights)]
    assert [finding.verdict.value for finding in findings] == ["positive", "uncertain", "negative"]
    expected = 1 / (1 + np.exp(-20 * (153 - 128) / 255 / 2))
    for finding in findings[:2]:
        assert finding.types == pytest.approx({"a": expected, "b": 1 - expected}, abs=1e-4)
    assert findings[2].types == {}
    assert caption(findings[0]).endswith(f", a {expected:.3f}, b {1 - expected:.3f}")


def test_trunk_runs_once_and_specialists_only_on_their_pictures(weights, tmp_path, monkeypatch):
    rows = count_rows(monkeypatch)
    regions = [{"hand": 0.9}, {"hand": 0.9, "elbow": 0.9}, {}, {"hand": 0.9}]
    paths = [write_png(tmp_path / f"{i}.png", r, {}) for i, r in enumerate(regions)]
    judge(paths, weights)
    assert rows == {"trunk": 4, "region": 4, "fracture-elbow": 1, "fracture-hand": 3}
