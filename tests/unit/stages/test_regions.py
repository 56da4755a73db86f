"""The table of regions: refusal of invalid entries, and everything derived from the table."""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.config import load
from pipeline.errors import ConfigError
from pipeline.io.body_parts import BODY_PARTS, VIEWS
from pipeline.regions import REGIONS, TABLE, Place, places
from stages.evaluation.plots import COLOURS
from stages.evaluation.routing import SEVERAL, view_classes
from stages.experiments.crossval_table import DISPLAYED
from stages.experiments.system_configs import SystemConfig
from stages.settings import FractureConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Elbow"}, "expected lower-case letters"),
        ({"name": "left-elbow"}, "expected lower-case letters"),
        *(({"name": name}, f"name is '{name}'") for name in ("all", "none", "unknown")),
        ({"colour": "red"}, "colour of elbow is 'red', expected #rrggbb"),
        ({"parts": "OLECRANON"}, "expected to include ELBOW"),
        ({"parts": "ELBOW? OLECRANON"}, "expected to include ELBOW"),
    ],
)
def test_invalid_entry_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(TABLE[0], **changes)


def test_names_and_colours_are_unique():
    assert len(set(REGIONS)) == len({region.colour for region in TABLE}) == len(TABLE)


def test_word_of_several_regions_maps_to_all_of_them():
    elbow, hand = TABLE[:2]
    table = (replace(elbow, parts="ELBOW ARM?"), replace(hand, parts="HAND ARM"))
    assert places(lambda region: region.parts, table) == {
        "ELBOW": Place(("elbow",)), "HAND": Place(("hand",)), "ARM": Place(("hand",), ("elbow",)),
    }  # fmt: skip


def test_header_words_fit_a_coded_value():
    for word in (*BODY_PARTS, *VIEWS):
        assert re.fullmatch("[A-Z]{2,16}", word)


def test_settings_take_every_region_and_no_other():
    for name in (*REGIONS, "all"):
        assert load(FractureConfig, options={"region": name}).region == name
    with pytest.raises(ConfigError, match="'foot' is not a region, expected one of elbow, hand"):
        load(FractureConfig, options={"region": "foot"})
    assert SystemConfig().regions == REGIONS


def test_help_plots_and_tables_contain_every_region():
    help_text = CliRunner().invoke(main, ["--help"]).output
    options = CliRunner().invoke(main, ["train-stage", "fracture", "--help"]).output
    for region in REGIONS:
        assert region in help_text
        assert region in options
        assert region in COLOURS
        assert f"{region} in view" in DISPLAYED


@pytest.mark.parametrize(
    ("regions", "row"),
    [
        ("hand", "hand"), ("none", "none"), ("unknown", "unknown"), ("elbow;hand", SEVERAL),
        ("elbow;hand?", SEVERAL), ("shoulder?", "unknown"), ("elbow?;hand?", "unknown"),
    ],
)  # fmt: skip
def test_view_class_of_uncertain_regions_is_unknown(regions, row):
    assert view_classes(pd.DataFrame({"regions": [regions]})) == [row]
