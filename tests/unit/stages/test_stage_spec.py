"""Stages: kinds of labels, names, selection of pictures, targets."""

import numpy as np
import pytest
from tables import sample

from pipeline.errors import ConfigError
from stages.stage_spec import fracture_stage, label_kind, region_stage


def rows(**kinds):
    return [
        sample(f"{kind}{n}", label=n % 2, label_kind=kind)
        for kind, count in kinds.items()
        for n in range(count)
    ]


def test_single_label_kind_is_the_target():
    assert label_kind(rows(fracture=2), mix=False) == "fracture"
    assert label_kind(rows(abnormality=2), mix=False) == "abnormality"
    assert label_kind(rows(fracture=2), mix=True) == "fracture"


def test_mixed_label_kinds_need_the_option_and_give_the_weaker_target():
    mixed = rows(fracture=2, abnormality=3)
    with pytest.raises(ConfigError, match="3 of kind abnormality, 2 of kind fracture") as caught:
        label_kind(mixed, mix=False)
    assert "mix_label_kinds" in caught.value.hint
    assert label_kind(mixed, mix=True) == "abnormality"


@pytest.mark.parametrize("mix", [False, True])
def test_labels_of_unknown_kind_are_refused(mix):
    with pytest.raises(ConfigError, match="their meaning is unknown") as caught:
        label_kind(rows(fracture=4, unknown=1), mix)
    assert "--label-kind" in caught.value.hint
    with pytest.raises(ConfigError, match="no training picture has a label"):
        label_kind([sample("a", label=None, label_kind="")], mix)


def test_stage_is_named_after_its_target():
    assert fracture_stage("hand", "abnormality").name == "abnormality-hand"
    assert fracture_stage("hand", "abnormality").labels == ("abnormality",)
    assert region_stage("abnormality").outputs == ("elbow", "hand", "shoulder", "abnormality")
    assert region_stage(None).outputs == ("elbow", "hand", "shoulder")


def test_specialist_for_all_regions_selects_every_labelled_picture():
    rows = [
        sample("leg", regions="none", label=1),
        sample("dark", regions="unknown", label=0),
        sample("unlabelled", label=None, label_kind=""),
        sample("elbow", regions="elbow", label=0),
    ]
    all_regions, hand = fracture_stage("all", "fracture"), fracture_stage("hand", "fracture")
    assert [all_regions.selects(row) for row in rows] == [True, True, False, True]
    assert not any(hand.selects(row) for row in rows)


def test_region_stage_has_a_fracture_target_only_with_the_auxiliary_output():
    targets = region_stage(None).targets([sample("a", label=1)])
    np.testing.assert_array_equal(targets, [[0, 1, 0]])
    assert region_stage("fracture").targets([sample("a", label=1)]).tolist() == [[0, 1, 0, 1]]
