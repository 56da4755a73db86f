"""Settings: example files, overrides, faults."""

from pathlib import Path

import pytest

from pipeline.config import RunConfig, load
from pipeline.errors import ConfigError
from stages.settings import FractureConfig, RegionConfig

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (RunConfig, "run.toml"),
        (RegionConfig, "train-region.toml"),
        (FractureConfig, "train-fracture.toml"),
    ],
)
def test_example_file_contains_every_default(model, name):
    import tomllib

    file = CONFIGS / name
    assert load(model, file) == model()
    written = tomllib.loads(file.read_text())
    assert written == model().model_dump(mode="json", exclude_none=True)


def test_all_faults_are_reported_with_the_most_similar_setting(tmp_path):
    file = tmp_path / "train.toml"
    file.write_text("[optim]\nweigth_decay = 1\nlr = -1\n[train]\ntrainable_from = 'layer9'\n")
    with pytest.raises(ConfigError) as caught:
        load(RegionConfig, file)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert f"{file}: optim.weigth_decay is not a setting; did you mean optim.weight_decay?" in lines
    assert any("optim.lr" in line and "-1" in line for line in lines)
    assert any("layer9" in line and "layer4.2" in line for line in lines)


def test_override_takes_precedence_over_the_file(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("batch_size = 4\nworkers = 3\n")
    config = load(RunConfig, file, ["batch_size=2", "operating_point=sensitive"])
    assert (config.batch_size, config.workers, config.operating_point) == (2, 3, "sensitive")


@pytest.mark.parametrize(
    ("heatmaps", "output", "expected"),
    [
        (None, {}, "none"),
        (None, {"report": True}, "positive"),
        (None, {"dicom_out": "objects"}, "positive"),
        ("none", {"report": True}, "none"),
        ("all", {}, "all"),
    ],
)
def test_report_has_heatmaps_of_positives_unless_set_otherwise(heatmaps, output, expected):
    assert RunConfig(heatmaps=heatmaps, **output).shown_heatmaps == expected


def test_partial_section_keeps_the_other_defaults():
    config = load(FractureConfig, None, ["train.seed=3", "optim.epochs=1"])
    assert config.train.trainable_from == "layer4.2"
    assert (config.optim.lr, config.optim.patience) == (1e-4, 10)
    assert (config.train.seed, config.optim.epochs) == (3, 1)


@pytest.mark.parametrize("text", ["batch_size", "=3"])
def test_malformed_override_is_refused(text):
    with pytest.raises(ConfigError, match="expected key=value"):
        load(RunConfig, None, [text])


def test_error_names_a_file_that_is_not_toml(tmp_path):
    file = tmp_path / "bad.toml"
    file.write_text("batch_size =")
    with pytest.raises(ConfigError, match=r"bad\.toml: not TOML"):
        load(RunConfig, file)


@pytest.mark.parametrize("file", sorted((CONFIGS / "next").glob("*.toml")), ids=lambda f: f.name)
def test_recipe_of_the_next_weights_is_valid(file):
    model = FractureConfig if "fracture" in file.name else RegionConfig
    assert load(model, file) != model()


def test_option_values_are_not_parsed_and_take_precedence_over_overrides():
    words = {"operating_point": "1", "dicom_out": Path('o\'brien/"out"'), "device": "cpu"}
    config = load(RunConfig, None, ["device=cuda", "batch_size=4"], words)
    assert (config.operating_point, config.device, config.batch_size) == ("1", "cpu", 4)
    assert config.dicom_out == Path('o\'brien/"out"')
    nested = load(RegionConfig, None, ["model.init=none"], {"model.init": "o'brien/runs"})
    assert nested.model.init == "o'brien/runs"
    with pytest.raises(ConfigError, match=r"train\.seed\.deep: seed is a value"):
        load(RegionConfig, None, ["train.seed=1"], {"train.seed.deep": 1})
