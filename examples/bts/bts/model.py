"""The model: a GRU of eight units that predicts the next grid load from the last six.

It predicts the change from the last value, so that weights of zero are the forecast "no change". Plain
numpy: no framework, and 249 weights as JSON.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

WINDOW = 6
UNITS = 8
#: The scale of the public BTS data set, in ampere: its clients send `(value - MEAN) / SCALE`.
MEAN = 12.04030374
SCALE = 12.95969626


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of a GRU; gates in the order reset, update, candidate."""

    #: Of the input, shape (3, UNITS).
    inputs: Array
    #: Of the state, shape (3, UNITS, UNITS).
    state: Array
    #: Shape (3, UNITS).
    bias: Array
    #: Of the output, shape (UNITS,).
    output: Array
    #: Shape (1,).
    output_bias: Array

    def arrays(self) -> tuple[Array, ...]:
        """Return all arrays in the order of the fields."""
        return (self.inputs, self.state, self.bias, self.output, self.output_bias)


@dataclass(frozen=True, slots=True)
class Model:
    """A trained model with the facts that monitoring wants to know of it."""

    weights: Weights
    version: str
    sha256: str
    #: When it was trained, Unix seconds.
    trained_timestamp: float
    #: What `drift.Reference` is made from.
    reference: dict[str, Any]
    name: str = "bts-gru"
    framework: str = "numpy"

    def predict(self, windows: Array) -> Array:
        """Return the predicted next values, shape (n,), of normalised `windows` of shape (n, WINDOW)."""
        return windows[:, -1] + run(self.weights, windows)


def normalise(ampere: Array) -> Array:
    """Return loads in ampere as the model takes them."""
    return (ampere - MEAN) / SCALE


def denormalise(value: Array) -> Array:
    """Return normalised loads in ampere."""
    return value * SCALE + MEAN


def run(weights: Weights, windows: Array) -> Array:
    """Return the predicted change from the last value, shape (n,), of `windows` of shape (n, WINDOW)."""
    state = np.zeros((len(windows), UNITS))
    for value in windows.T:
        state = step(weights, value[:, None], state)[0]
    change: Array = state @ weights.output + weights.output_bias[0]
    return change


def step(weights: Weights, value: Array, state: Array) -> tuple[Array, Array, Array, Array]:
    """Return the next state, shape (n, UNITS), and the gates reset, update and candidate that led to it."""
    into, recurrent, bias = weights.inputs, weights.state, weights.bias
    reset = sigmoid(value * into[0] + state @ recurrent[0] + bias[0])
    update = sigmoid(value * into[1] + state @ recurrent[1] + bias[1])
    candidate = np.tanh(value * into[2] + (reset * state) @ recurrent[2] + bias[2])
    return (1 - update) * state + update * candidate, reset, update, candidate


def sigmoid(value: Array) -> Array:
    """Return the logistic function."""
    result: Array = 1 / (1 + np.exp(-value))
    return result


def load(path: Path | None = None) -> Model:
    """Return the model in a JSON file, by default the one that comes with the package.

    OSError where the file cannot be read; ValueError for weights of another shape or that are not finite.
    """
    text = (path or files("bts") / "model.json").read_text()
    data = json.loads(text)
    shapes = {
        "inputs": (3, UNITS),
        "state": (3, UNITS, UNITS),
        "bias": (3, UNITS),
        "output": (UNITS,),
        "output_bias": (1,),
    }
    arrays = {key: np.array(data["weights"][key], dtype=np.float64) for key in shapes}
    for key, shape in shapes.items():
        if arrays[key].shape != shape or not np.isfinite(arrays[key]).all():
            msg = f"{key} is not an array of finite numbers of shape {shape}"
            raise ValueError(msg)
    return Model(
        weights=Weights(**arrays),
        version=str(data["version"]),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        trained_timestamp=float(data["trained_timestamp"]),
        reference=dict(data["reference"]),
    )
