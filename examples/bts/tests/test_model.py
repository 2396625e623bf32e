"""The model and its training."""

from __future__ import annotations

import numpy as np

from bts import model, train


def test_model_beats_no_change_on_stations_it_has_not_seen() -> None:
    """The committed weights have a lower mean absolute error than the last value as the forecast."""
    scores = train.score(model.load().weights, train.SEED)

    assert scores.model < 0.95 * scores.no_change


def test_training_reproduces_the_committed_weights() -> None:
    """Training with the same seed ends at the committed weights; processors differ in the last digits."""
    trained = train.train(train.SEED)

    for array, committed in zip(trained.arrays(), model.load().weights.arrays(), strict=True):
        np.testing.assert_allclose(array, committed, atol=0.05)


def test_gradient_is_that_of_the_loss() -> None:
    """Backpropagation agrees with finite differences in every weight."""
    random = np.random.default_rng(0)
    weights = train.first_weights(random)
    windows, changes = random.normal(0, 0.3, (16, model.WINDOW)), random.normal(0, 0.02, 16)

    def loss() -> float:
        error = np.abs(model.run(weights, windows) - changes)
        delta = train.HUBER_DELTA
        return float(np.where(error < delta, error**2 / 2, delta * (error - delta / 2)).mean())

    slopes = train.gradient(weights, windows, changes)

    for array, slope in zip(weights.arrays(), slopes.arrays(), strict=True):
        for index in np.ndindex(array.shape):
            before, step = array[index], 1e-6
            array[index] = before + step
            above = loss()
            array[index] = before - step
            below = loss()
            array[index] = before
            np.testing.assert_allclose(slope[index], (above - below) / (2 * step), atol=1e-6)


def test_normalisation_is_that_of_the_public_clients() -> None:
    """A normalised value is the load less the mean, divided by the scale; and back."""
    loads = np.array([0.0, 12.04030374, 25.0])

    np.testing.assert_allclose(model.normalise(loads), [-0.92906, 0, 1], atol=1e-5)
    np.testing.assert_allclose(model.denormalise(model.normalise(loads)), loads)
