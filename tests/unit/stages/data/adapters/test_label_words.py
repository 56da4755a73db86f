"""Words for labels and regions in file names and tables."""

from __future__ import annotations

import pytest

from stages.data.adapters.label_words import kind_of, label_of, regions_of


@pytest.mark.parametrize(
    ("words", "value", "kind"),
    [
        (("fractured", "Fracture", "FRACTURES"), 1, "fracture"),
        (("not fractured", "Not_Fractured", "non-fractured", "Non_fractured"), 0, "fracture"),
        (("unfractured", "no_fracture", "notfractured", "Non Fracture"), 0, "fracture"),
        (("abnormal", "Abnormality"), 1, "abnormality"),
        (("normal", " Normal "), 0, "abnormality"),
        (("positive", "1", "1.0", "True", "YES"), 1, "unknown"),
        (("negative", "0", "0.0", "false", "no", "healthy"), 0, "unknown"),
    ],
)
def test_label_words(words, value, kind):
    assert {(label_of(word).value, label_of(word).kind) for word in words} == {(value, kind)}


def test_only_words_without_a_firm_kind_take_the_kind_of_siblings_or_option():
    labels = map(label_of, ("fractured", "abnormal", "normal"))
    fractured, abnormal, normal = (label for label in labels if label is not None)
    assert kind_of(fractured, [[abnormal]], stated="abnormality") == "fracture"
    assert kind_of(fractured, [[abnormal]]) == "fracture"
    assert kind_of(normal, [[fractured]]) == "fracture"
    assert kind_of(normal, [[fractured, abnormal], [fractured]]) == "fracture"
    assert kind_of(normal, [[fractured]], stated="abnormality") == "abnormality"


@pytest.mark.parametrize("word", ["", "-1", "2", "maybe", "fracture type", "10"])
def test_other_words_are_not_labels(word):
    assert label_of(word) is None


@pytest.mark.parametrize(
    ("text", "regions"),
    [
        ("ELBOW", "elbow"),
        ("XR_ELBOW", "elbow"),
        ("Left wrist", "hand"),
        ("finger", "hand"),
        ("LOWER LEG", "none"),
        ("knee", "none"),
        ("elbow + hand", "elbow;hand"),
        ("hand/knee", "hand"),
        ("elbow;hand?;shoulder", "elbow;hand?;shoulder"),
        ("none", "none"),
        ("", "unknown"),
        ("unknown", "unknown"),
        ("forearm", "elbow?;hand?"),
        ("HUMERUS", "elbow?;shoulder?"),
        ("CLAVICLE", "shoulder?"),
        ("forearm, wrist", "elbow?;hand"),
        ("hand; elbow", "elbow;hand"),
        ("elbow?;hand?;shoulder?", "unknown"),
        ("hand, gizmo", None),
        ("left", None),
    ],
)
def test_region_words(text, regions):
    assert regions_of(text) == regions
