"""Train the model: `python -m bts.train` writes bts/model.json.

The model is trained on simulated stations and tested on others that it has not seen. The loss is Huber's:
with squared errors the model learns the rare starts of a compressor and loses against "no change" in the
mean absolute error.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bts import training_report
from bts.drift import Reference
from bts.generator import load_series
from bts.model import UNITS, WINDOW, Array, Weights, denormalise, normalise, run, step

SEED = 1
VERSION = "1"
TRAINING_STATIONS = range(1000, 1040)
HELD_OUT_STATIONS = range(2000, 2020)
SERIES_LENGTH = 1500
INTERVAL_SECONDS = 30.0
STEPS = 8000
BATCH = 256
LEARNING_RATE = 0.03
#: Errors above this, in normalised units (0.26 A), count linearly.
HUBER_DELTA = 0.02
DIGITS = 4


@dataclass(frozen=True, slots=True)
class Scores:
    """Mean absolute errors in ampere on held-out stations."""

    model: float
    no_change: float


def series_of(stations: range, seed: int) -> list[Array]:
    """Return the loads of each station in ampere."""
    return [
        np.fromiter(load_series(station, seed, SERIES_LENGTH, INTERVAL_SECONDS), dtype=np.float64)
        for station in stations
    ]


def windows_of(stations: range, seed: int) -> tuple[Array, Array]:
    """Return normalised windows of shape (n, WINDOW) and the values that follow, shape (n,)."""
    windows, following = [], []
    for loads in series_of(stations, seed):
        series = normalise(loads)
        view = np.lib.stride_tricks.sliding_window_view(series, WINDOW + 1)
        windows.append(view[:, :WINDOW])
        following.append(view[:, WINDOW])
    return np.concatenate(windows), np.concatenate(following)


def first_weights(random: np.random.Generator) -> Weights:
    """Return small random weights with which a model predicts almost no change."""
    return Weights(
        inputs=random.normal(0, 0.5, (3, UNITS)),
        state=random.normal(0, 0.3, (3, UNITS, UNITS)),
        bias=np.zeros((3, UNITS)),
        output=random.normal(0, 0.01, UNITS),
        output_bias=np.zeros(1),
    )


def gradient(weights: Weights, windows: Array, changes: Array) -> Weights:
    """Return the gradient of the mean Huber loss by backpropagation through the six steps."""
    states, gates = [np.zeros((len(windows), UNITS))], []
    for value in windows.T:
        state, *gate = step(weights, value[:, None], states[-1])
        states.append(state)
        gates.append(gate)
    error = states[-1] @ weights.output + weights.output_bias[0] - changes
    slope = np.clip(error, -HUBER_DELTA, HUBER_DELTA) / len(windows)

    into, recurrent, bias = (np.zeros_like(array) for array in weights.arrays()[:3])
    back = slope[:, None] * weights.output
    for index in reversed(range(WINDOW)):
        value, state = windows[:, index], states[index]
        reset, update, candidate = gates[index]
        by_candidate = back * update * (1 - candidate**2)
        by_update = back * (candidate - state) * update * (1 - update)
        by_reset_state = by_candidate @ weights.state[2].T
        by_reset = by_reset_state * state * reset * (1 - reset)
        sources = (state, state, reset * state)
        for row, slopes in enumerate((by_reset, by_update, by_candidate)):
            into[row] += value @ slopes
            recurrent[row] += sources[row].T @ slopes
            bias[row] += slopes.sum(axis=0)
        back = (
            back * (1 - update)
            + by_reset_state * reset
            + by_reset @ weights.state[0].T
            + by_update @ weights.state[1].T
        )
    return Weights(into, recurrent, bias, states[-1].T @ slope, np.array([slope.sum()]))


class Adam:
    """Adam's moments of one array of weights, which it changes in place."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self._mean = np.zeros_like(array)
        self._square = np.zeros_like(array)

    def step(self, slope: Array, rate: float, number: int) -> None:
        """Take step `number`, counted from 1, against `slope`."""
        self._mean += 0.1 * (slope - self._mean)
        self._square += 0.001 * (slope**2 - self._square)
        scale = np.sqrt(self._square / (1 - 0.999**number)) + 1e-8
        self._array -= rate * (self._mean / (1 - 0.9**number)) / scale


def train(seed: int) -> Weights:
    """Return weights trained by Adam, with a learning rate that falls to zero."""
    random = np.random.default_rng(seed)
    windows, following = windows_of(TRAINING_STATIONS, seed)
    changes = following - windows[:, -1]
    weights = first_weights(random)
    optimisers = [Adam(array) for array in weights.arrays()]
    for number in range(1, STEPS + 1):
        chosen = random.integers(0, len(windows), BATCH)
        slopes = gradient(weights, windows[chosen], changes[chosen]).arrays()
        rate = LEARNING_RATE * (1 - number / STEPS)
        for optimiser, slope in zip(optimisers, slopes, strict=True):
            optimiser.step(slope, rate, number)
    return Weights(*(array.round(DIGITS) for array in weights.arrays()))


def score(weights: Weights, seed: int) -> Scores:
    """Return the errors of the model and of "no change" on stations that were not trained on."""
    windows, following = windows_of(HELD_OUT_STATIONS, seed)
    truth, last = denormalise(following), denormalise(windows[:, -1])
    predicted = denormalise(windows[:, -1] + run(weights, windows))
    return Scores(
        model=float(np.abs(predicted - truth).mean()),
        no_change=float(np.abs(last - truth).mean()),
    )


def as_json(weights: Weights, seed: int, trained_timestamp: float) -> str:
    """Return the text of model.json: the weights, and the distribution of the data they were trained on."""
    names = ("inputs", "state", "bias", "output", "output_bias")
    arrays = {name: array.tolist() for name, array in zip(names, weights.arrays(), strict=True)}
    model = {
        "version": VERSION,
        "trained_timestamp": trained_timestamp,
        "reference": Reference.of(series_of(TRAINING_STATIONS, seed)).as_json(),
        "weights": arrays,
    }
    return json.dumps(model, separators=(",", ":")) + "\n"


def command_line() -> argparse.ArgumentParser:
    """Return the command line of the training."""
    parser = argparse.ArgumentParser(prog="python -m bts.train", description="Train the BTS model.")
    default = Path(__file__).with_name("model.json")
    parser.add_argument("--output", type=Path, default=default, help="file to write (%(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="of data and weights (%(default)s)")
    parser.add_argument(
        "--textfile-directory",
        type=Path,
        metavar="DIR",
        help="write bts_training.prom there, for the exporter's textfile collector",
    )
    parser.add_argument(
        "--pushgateway", metavar="URL", help="push the same metrics there, with `bts-exporter push`"
    )
    return parser


def main() -> None:
    """Train, print both errors, write the model, and report to monitoring."""
    options = command_line().parse_args()
    started = time.monotonic()
    weights = train(options.seed)
    scores = score(weights, options.seed)
    options.output.write_text(as_json(weights, options.seed, round(time.time())))
    duration = time.monotonic() - started
    print(f"MAE on {len(HELD_OUT_STATIONS)} held-out stations: {scores.model:.4f} A (model)")
    print(
        f'MAE of "no change": {scores.no_change:.4f} A; ratio {scores.model / scores.no_change:.3f}'
    )
    print(f"{options.output} written after {duration:.1f} s")

    metrics = training_report.metrics_of(scores.model, scores.no_change, duration)
    if options.textfile_directory:
        training_report.write(metrics, options.textfile_directory)
    if options.pushgateway:
        training_report.push(metrics, options.pushgateway)


if __name__ == "__main__":
    main()
