"""Making of an ensemble of specialists from several weights folders."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np
import pytest
from bundles import SPEC, TRUNK, for_all, spec, standard_specs, write_png
from tables import sample
from tiny_networks import ensemble, network, write_bundles

from pipeline.bundle import BundleSpec, EnsembleSpec, Kind, Precision
from pipeline.config import RunConfig
from pipeline.engine import run
from pipeline.errors import BundleError, ConfigError, UsageError
from pipeline.progress import Silent
from pipeline.runtime.session import Weights, load_bundles
from pipeline.weights.manifest import read_manifest
from pipeline.weights.verify import check_all
from stages.export.ensemble import Made, Order, Pick, make_ensemble
from stages.export.recalibrate import Wanted
from stages.samples import Index

pytestmark = pytest.mark.slow

CPU = RunConfig(device="cpu", intra_op_threads=1, workers=2)
OTHER = "b" * 64


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Index:
    """Hands, and pictures without a supported region for a specialist for all regions."""
    home = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    samples = []
    for i in range(48):
        label, hand = i % 2, i < 32
        cells = np.clip(random.normal(0.42 + 0.16 * label, 0.1, 2), 0, 1).tolist()
        probabilities = {"hand": 0.9} if hand else {}
        path = write_png(home / f"{i}.png", probabilities, {"hand": cells[0], "all": cells[1]})
        regions = "hand" if hand else "none"
        samples.append(sample(str(path), label=label, split="val", regions=regions))
    return Index(home / "index.csv", "0" * 64, tuple(samples))


def specialist(**changes: object) -> BundleSpec:
    return spec("fracture-hand", Kind.FRACTURE, **changes)


def whole(**changes: object) -> BundleSpec:
    canvas = SPEC.model_copy(update={"height_px": 128, "width_px": 128})
    return specialist(**{"input": "image", "trunk": None, "preprocess": canvas, **changes})


def other_trunk() -> list[BundleSpec]:
    """Another trunk with the common name, and its head."""
    return [spec("trunk", Kind.TRUNK, trunk=OTHER), specialist(trunk=OTHER, bias=(0.3,))]


def make(
    index: Index, target: Path, *members: Path | Pick, region: str = "hand",
    base: Path | None = None,
) -> Made:  # fmt: skip
    picks = tuple(m if isinstance(m, Pick) else Pick(m) for m in members)
    targets = Wanted(0.8, 0.8, "val", points_only=False)
    return make_ensemble(index, Order(region, picks, base), target, targets, CPU, Silent())


def opened(folder: Path) -> Weights:
    return load_bundles(folder, CPU)


def test_made_folder_runs(index, tmp_path, caplog):
    base = write_bundles(tmp_path / "base")
    other = write_bundles(tmp_path / "other", [whole(temperature=(2.0,))])
    (base / "NOTICE.md").write_text("Terms of use.\n")
    before = {path: path.read_bytes() for path in base.iterdir()}
    made = make(index, tmp_path / "new", base, other)
    assert (made.name, made.precisions) == ("fracture-hand", (Precision.FP32,))
    assert list(made.members) == ["fracture-hand-1", "fracture-hand-2"]
    assert made.no_heatmap is None
    assert not caplog.records
    weights = opened(tmp_path / "new")
    assert set(weights.fracture) == {"elbow", "hand", "shoulder"}
    stage = weights.fracture["hand"]
    assert [n.spec.name for n in stage.networks] == ["fracture-hand", *made.members]
    assert stage.spec.operating_points == made.calibrated.points
    assert (stage.spec.temperature, stage.spec.bias) == ((1.0,), (0.0,))
    assert stage.spec.provenance.index_digest == index.digest
    assert (made.calibrated.pictures, made.calibrated.positives) == (32, 16)
    assert "sensitivity 0.8 for a new picture" in stage.spec.operating_points["sensitive"].rule
    assert (tmp_path / "new/NOTICE.md").read_text() == "Terms of use.\n"
    manifest = read_manifest(tmp_path / "new")
    assert [listed.file for listed in manifest.documents] == ["NOTICE.md"]
    check_all(tmp_path / "new", manifest)
    assert {path: path.read_bytes() for path in base.iterdir()} == before


def test_bundles_that_are_not_renamed_are_identical(index, tmp_path):
    base = write_bundles(tmp_path / "base")
    other = write_bundles(tmp_path / "other", [whole()])
    make(index, tmp_path / "new", base, other)
    old = {entry.name: entry.sha256 for entry in read_manifest(base).bundles}
    for entry in read_manifest(tmp_path / "new").bundles:
        content = (tmp_path / "new" / entry.file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry.sha256
        if entry.name in ("trunk", "region", "fracture-elbow", "fracture-shoulder"):
            assert entry.sha256 == old[entry.name]


def test_engine_reaches_the_stated_sensitivity_and_specificity(index, tmp_path):
    base = write_bundles(tmp_path / "base")
    other = write_bundles(tmp_path / "other", [whole(bias=(0.5,))])
    made = make(index, tmp_path / "new", base, other)
    hands = [s for s in index.samples if s.regions == "hand"]
    outcomes = list(run([s.path for s in hands], opened(tmp_path / "new"), CPU))
    answers = [(o.findings[0].probability, s.label) for o, s in zip(outcomes, hands, strict=True)]
    for point in made.calibrated.points.values():
        hits = [p >= point.threshold for p, label in answers if label == 1]
        negatives = [p < point.threshold for p, label in answers if label == 0]
        assert sum(hits) / len(hits) == point.sensitivity.value
        assert sum(negatives) / len(negatives) == point.specificity.value


def test_shared_trunk_is_stored_once_and_another_of_the_same_name_is_renamed(index, tmp_path):
    base = write_bundles(tmp_path / "base")
    same = write_bundles(tmp_path / "same", [standard_specs()[0], specialist(bias=(0.2,))])
    other = write_bundles(tmp_path / "other", other_trunk())
    make(index, tmp_path / "new", base, same, other)
    weights = opened(tmp_path / "new")
    assert {n.spec.name: n.spec.trunk for n in weights.trunks.values()} == {
        "trunk": TRUNK, "trunk-fracture-hand-3": OTHER,
    }  # fmt: skip


def test_one_of_two_trunks_of_the_same_name_is_renamed(index, tmp_path):
    third = [s.model_copy(update={"trunk": "c" * 64}) for s in other_trunk()]
    folders = [
        write_bundles(tmp_path / name, specs)
        for name, specs in (("other", other_trunk()), ("third", third))
    ]
    router = spec("region", Kind.REGION, input="image", trunk=None)
    base = write_bundles(tmp_path / "base", [router])
    make(index, tmp_path / "new", *folders, base=base)
    weights = opened(tmp_path / "new")
    assert {n.spec.name: n.spec.trunk for n in weights.trunks.values()} == {
        "trunk": OTHER, "trunk-fracture-hand-2": "c" * 64,
    }  # fmt: skip
    assert list(weights.fracture) == ["hand"]


def test_ensemble_replaces_an_ensemble(index, tmp_path):
    base = write_bundles(tmp_path / "base")
    other = write_bundles(tmp_path / "other", other_trunk())
    make(index, tmp_path / "one", base, other)
    third = write_bundles(tmp_path / "third", [whole()])
    made = make(index, tmp_path / "two", Pick(tmp_path / "one", "fracture-hand-1"), third)
    weights = opened(tmp_path / "two")
    assert made.members["fracture-hand-1"].startswith("fracture-hand-1 of")
    assert [n.spec.name for n in weights.trunks.values()] == ["trunk"]  # without the other
    with pytest.raises(ConfigError, match="fracture-hand is an ensemble itself"):
        make(index, tmp_path / "three", tmp_path / "one", third)


def test_members_for_all_regions(index, tmp_path):
    base = write_bundles(tmp_path / "base", for_all())
    other = write_bundles(
        tmp_path / "other", [for_all()[0], spec("fracture-all", Kind.FRACTURE, bias=(1.0,))]
    )
    made = make(index, tmp_path / "new", base, other, region="all")
    assert made.calibrated.pictures == 48
    weights = opened(tmp_path / "new")
    assert (weights.region, list(weights.fracture)) == (None, ["all"])
    hands = write_bundles(tmp_path / "hands")
    made = make(index, tmp_path / "mixed", hands, base)  # a member for all regions
    assert made.calibrated.pictures == 32
    assert set(opened(tmp_path / "mixed").fracture) == {"elbow", "hand", "shoulder"}


def test_precisions_that_a_member_lacks_are_omitted(index, tmp_path, caplog):
    def in_both(specs: list[BundleSpec]) -> list[BundleSpec]:
        return [*specs, *(s.model_copy(update={"precision": Precision.INT8}) for s in specs)]

    base = write_bundles(tmp_path / "base", in_both(standard_specs()))
    both = write_bundles(tmp_path / "both", in_both([whole()]))
    made = make(index, tmp_path / "one", base, both)
    assert set(made.precisions) == {Precision.INT8, Precision.FP32}
    for precision in made.precisions:
        weights = load_bundles(tmp_path / "one", CPU.model_copy(update={"precision": precision}))
        assert weights.fracture["hand"].spec.operating_points == made.calibrated.points
    single = write_bundles(tmp_path / "single", [whole()])
    with caplog.at_level(logging.WARNING):
        assert make(index, tmp_path / "two", base, single).precisions == (Precision.FP32,)
    assert "int8 is omitted: fracture-hand-2 does not have it" in caplog.text
    only = write_bundles(tmp_path / "only", [whole(precision=Precision.FP16)])
    with pytest.raises(ConfigError, match="no precision is common to all bundles"):
        make(index, tmp_path / "three", base, only)


def test_ensemble_without_a_common_map_has_none_and_states_the_reason(index, tmp_path):
    base = write_bundles(tmp_path / "base")
    no_map = write_bundles(tmp_path / "no-map", [whole(heatmap=False)])
    made = make(index, tmp_path / "new", base, no_map)
    assert made.no_heatmap == "fracture-hand has no evidence output"
    assert not opened(tmp_path / "new").fracture["hand"].spec.heatmap


def test_member_trained_with_another_table_causes_a_warning(index, tmp_path, caplog):
    base = write_bundles(tmp_path / "base")
    member = whole()
    member = member.model_copy(
        update={"provenance": member.provenance.model_copy(update={"index_digest": "9" * 64})}
    )
    other = write_bundles(tmp_path / "other", [member])
    with caplog.at_level(logging.WARNING):
        make(index, tmp_path / "new", base, other)
    (message,) = caplog.messages
    assert "fracture-hand of" in message
    assert "was not trained with" in message


@pytest.mark.parametrize(
    ("specs", "bundle", "fault", "message"),
    [
        (
            [whole(target="abnormality")],
            None,
            ConfigError,
            r"predicts abnormality \(fracture\), exp",
        ),
        ([whole(labels=("break",))], None, ConfigError, r"predicts fracture \(break\), expected"),
        ([whole(region="elbow")], "fracture-hand", ConfigError, "elbow, expected hand or"),
        ([standard_specs()[0], specialist()], None, ConfigError, "is already a member"),
        ([spec("region", Kind.REGION)], None, BundleError, "contains no specialist for hand"),
        (
            [whole()],
            "fracture-foot",
            BundleError,
            "contains no fracture-foot; its fracture bundles",
        ),
        ([specialist(trunk=OTHER)], None, BundleError, "belongs to trunk bbbbbbbbbbbb, which is m"),
    ],
)
def test_incompatible_members_are_refused(index, tmp_path, specs, bundle, fault, message):
    base = write_bundles(tmp_path / "base")
    other = write_bundles(tmp_path / "other", specs)
    with pytest.raises(fault, match=message):
        make(index, tmp_path / "new", base, Pick(other, bundle))
    assert not (tmp_path / "new").exists()


def test_single_member_and_non_empty_folder_are_refused(index, tmp_path):
    base = write_bundles(tmp_path / "base")
    with pytest.raises(UsageError, match="1 member, expected two or more"):
        make(index, tmp_path / "new", base)
    other = write_bundles(tmp_path / "other", [whole()])
    for used in (base, base / "manifest.json"):
        with pytest.raises(UsageError, match="the folder is not empty"):
            make(index, used, base, other)


def test_too_few_pictures_are_refused_and_no_folder_is_written(index, tmp_path):
    base = write_bundles(tmp_path / "base")
    other = write_bundles(tmp_path / "other", [whole()])
    few = Index(index.source, index.digest, index.samples[:12])
    with pytest.raises(ConfigError, match="too few labelled pictures in split val"):
        make(few, tmp_path / "new", base, other)
    assert not (tmp_path / "new").exists()


def test_name_of_a_member_used_by_another_bundle_is_refused(index, tmp_path):
    taken = spec("fracture-hand-2", Kind.FRACTURE, region="elbow")
    specs = [s for s in standard_specs() if s.name != "fracture-elbow"]
    base = write_bundles(tmp_path / "base", [*specs, taken])
    other = write_bundles(tmp_path / "other", [whole()])
    with pytest.raises(
        ConfigError, match="other bundles use the names of the members: fracture-han"
    ):
        make(index, tmp_path / "new", base, other)


def test_generated_ensembles_of_the_tests_equal_made_ones(index, tmp_path):
    """The tests of the runtime use generated ensembles."""
    base = write_bundles(tmp_path / "base")
    other = write_bundles(tmp_path / "other", [whole()])
    make(index, tmp_path / "new", base, other)
    stage = opened(tmp_path / "new").fracture["hand"]
    members = [n.spec for n in stage.networks[1:]]
    generated = ensemble("fracture-hand", members)
    assert isinstance(stage.spec, EnsembleSpec)
    assert set(stage.spec.members) == set(generated.members)
    assert network(generated)
