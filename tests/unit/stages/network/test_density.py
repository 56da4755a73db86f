"""The density gate: fitting, accepted and refused pictures, features that are not finite."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.bundle import Density
from pipeline.errors import ConfigError
from stages.network.density import DensityGate, fit_density, load, save, similarity
from stages.settings import DensityConfig

FEATURES = 40
SMALL = DensityConfig(dimensions=8, references=64, neighbours=5, refused=0.05)


def regions(random: np.random.Generator, count: int) -> np.ndarray:
    """(count, F) float32 features of three regions: noise around three directions."""
    centres = np.random.default_rng(0).normal(size=(3, FEATURES))
    rows = centres[random.integers(0, 3, count)] + 0.3 * random.normal(size=(count, FEATURES))
    return (rows + 2.0).astype(np.float32)


def unfamiliar(random: np.random.Generator, count: int) -> np.ndarray:
    """(count, F) float32 features around another direction in the space of the regions."""
    centres = np.random.default_rng(0).normal(size=(3, FEATURES))
    centre = -centres.sum(0) / 2
    rows = centre + 0.3 * random.normal(size=(count, FEATURES))
    return (rows + 2.0).astype(np.float32)


@pytest.fixture(scope="module")
def fitted():
    random = np.random.default_rng(1)
    return fit_density(regions(random, 300), regions(random, 200), SMALL, seed=3)


def test_pictures_of_the_same_kind_are_accepted_and_a_far_cluster_is_refused(fitted):
    random = np.random.default_rng(2)
    threshold = fitted.contract.threshold
    kept = similarity(regions(random, 400), fitted) >= threshold
    assert 0.88 < kept.mean() < 0.99
    assert (similarity(unfamiliar(random, 100), fitted) < threshold).all()


def test_configured_share_of_the_validation_pictures_is_refused():
    random = np.random.default_rng(1)
    training, validation = regions(random, 300), regions(random, 200)
    for share in (0.0, 0.01, 0.1):
        config = SMALL.model_copy(update={"refused": share})
        gate = fit_density(training, validation, config)
        refused = float(np.mean(similarity(validation, gate) < gate.contract.threshold))
        assert refused == gate.contract.refused == pytest.approx(share, abs=1 / 200)


def test_configured_share_of_the_validation_pictures_is_far_including_the_refused():
    random = np.random.default_rng(1)
    training, validation = regions(random, 300), regions(random, 200)
    for share in (0.0, 0.1, 0.3):
        config = SMALL.model_copy(update={"refused": 0.1, "far": share})
        contract = fit_density(training, validation, config).contract
        gate = fit_density(training, validation, config)
        far = float(np.mean(similarity(validation, gate) < contract.far))
        assert contract.far >= contract.threshold
        assert far == pytest.approx(max(share, 0.1), abs=1 / 200)


def test_contract_describes_the_stored_arrays(fitted):
    contract = fitted.contract
    assert (contract.dimensions, contract.references, contract.neighbours) == (8, 64, 5)
    assert fitted.projection.shape == (FEATURES, 8)
    assert fitted.references.shape == (64, 8)
    lengths = np.linalg.norm(fitted.references, axis=1)
    assert ((lengths > 0.9) & (lengths <= 1.0)).all()  # without the part outside of the projection
    product = fitted.projection.T @ fitted.projection
    np.testing.assert_allclose(product, np.eye(8), atol=1e-5)
    assert all(array.dtype == np.float32 for array in (fitted.projection, fitted.references))


def test_few_pictures_give_a_smaller_gate():
    random = np.random.default_rng(1)
    contract = fit_density(regions(random, 6), regions(random, 4), DensityConfig()).contract
    assert (contract.dimensions, contract.references, contract.neighbours) == (6, 6, 6)


def test_references_depend_on_the_seed():
    random = np.random.default_rng(1)
    training, validation = regions(random, 300), regions(random, 50)
    first, repeated, other = (fit_density(training, validation, SMALL, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.references, repeated.references)
    assert not np.array_equal(first.references, other.references)


def test_channel_of_zeros_does_not_change_the_similarity():
    random = np.random.default_rng(1)
    training, validation = regions(random, 300), regions(random, 50)
    longer, unseen = (
        np.hstack([rows, np.zeros((len(rows), 1), np.float32)]) for rows in (training, validation)
    )
    plain, more = fit_density(training, validation, SMALL), fit_density(longer, unseen, SMALL)
    assert np.isfinite(more.projection).all()
    np.testing.assert_allclose(similarity(unseen, more), similarity(validation, plain), atol=2e-2)


@pytest.mark.parametrize(
    ("training", "validation", "words"),
    [
        (2, 5, "2 training pictures show a supported region; at least 3 are needed"),
        (5, 0, "0 validation pictures"),
    ],
)
def test_too_few_pictures_are_refused(training, validation, words):
    random = np.random.default_rng(1)
    with pytest.raises(ConfigError, match=words):
        fit_density(regions(random, training), regions(random, validation), SMALL)


def test_rare_pictures_are_accepted_like_frequent_ones():
    random = np.random.default_rng(1)
    centres = np.random.default_rng(0).normal(size=(2, FEATURES))

    def near(which: int, count: int) -> np.ndarray:
        rows = centres[which] + 0.3 * random.normal(size=(count, FEATURES))
        return rows.astype(np.float32)

    training = np.concatenate([near(0, 600), near(1, 30)])
    validation = np.concatenate([near(0, 100), near(1, 100)])
    gate = fit_density(training, validation, SMALL.model_copy(update={"references": 40}))
    refused = similarity(validation, gate) < gate.contract.threshold
    assert refused[100:].mean() < 0.15


def test_outlying_training_pictures_do_not_raise_the_similarity_of_their_like():
    random = np.random.default_rng(1)
    training, blank = regions(random, 300), np.full((2, FEATURES), -9.0, np.float32)
    gate = fit_density(
        np.concatenate([training, blank]), regions(random, 200), SMALL.model_copy(
            update={"neighbours": 2}
        )
    )  # fmt: skip
    assert (similarity(blank, gate) < gate.contract.threshold).all()


def test_constant_features_are_refused():
    same = np.ones((20, FEATURES), np.float32)
    with pytest.raises(ConfigError, match="the same features for every picture"):
        fit_density(same, same, SMALL)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused_in_fitting(bad):
    rows = regions(np.random.default_rng(1), 20)
    broken = rows.copy()
    broken[3, 4] = bad
    for training, validation in ((broken, rows), (rows, broken)):
        with pytest.raises(ConfigError, match="not finite"):
            fit_density(training, validation, SMALL)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_features_that_are_not_finite_never_pass_the_gate(fitted, bad):
    rows = regions(np.random.default_rng(2), 3)
    rows[1, 0] = bad
    for values in (
        similarity(rows, fitted),
        DensityGate(fitted)(torch.from_numpy(rows)).numpy(),
    ):
        kept = values >= fitted.contract.threshold
        assert not kept[1]
        assert np.isfinite(values[[0, 2]]).all()


def test_module_and_arrays_give_the_same_similarity(fitted):
    rows = np.concatenate(
        [regions(np.random.default_rng(5), 20), unfamiliar(np.random.default_rng(5), 20)]
    )
    values = DensityGate(fitted)(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(values, similarity(rows, fitted), atol=6e-5)


def test_gate_reads_as_written(fitted, tmp_path):
    save(tmp_path, fitted, "layer4.2")
    reread = load(tmp_path, "layer4.2")
    assert reread.contract == fitted.contract
    for name in ("projection", "references"):
        np.testing.assert_array_equal(getattr(reread, name), getattr(fitted, name))
    with pytest.raises(ConfigError, match=r"cut at layer4\.2, but this one is cut at layer4\.1"):
        load(tmp_path, "layer4.1")


def test_older_run_without_a_gate_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no density\.safetensors"):
        load(tmp_path, "layer4.2")


def test_contract_with_more_neighbours_than_references_is_refused():
    with pytest.raises(ValueError, match="5 neighbours among 4 references"):
        Density(dimensions=1, references=4, neighbours=5, threshold=0.5, refused=0.0, far=0.5)
