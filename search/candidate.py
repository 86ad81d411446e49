"""One candidate from architecture to .tflite: constraints first, training only if they hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codegen.engines import Objective
from codegen.limits import BoardLimits
from hil.oracle import Oracle
from search.architecture import Architecture
from search.constraints import Violation, violations
from search.data import InputQuant, Part, SearchData
from search.quantize import quantize, to_tflite
from search.study import TrainSettings

#: Inferences in one exchange with the oracle.
ORACLE_BATCH = 64


@dataclass(frozen=True, slots=True)
class Job:
    """What a training process needs beside the data."""

    architecture: Architecture
    name: str
    seed: int
    settings: TrainSettings
    boards: tuple[BoardLimits, ...]
    engine: str
    engine_objective: Objective


@dataclass(frozen=True, slots=True)
class Rejected:
    """The network does not fit."""

    violations: tuple[Violation, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trained and quantised network; `accuracy` is of the int8 one on validation samples."""

    tflite: bytes
    accuracy: float
    accuracy_samples: int
    float_accuracy: float
    epochs: int
    train_s: float
    device: str


def prepare(job: Job, data: SearchData) -> Rejected | Candidate:
    """Checks, trains, quantises, exports and validates one network."""
    found = violations(
        job.architecture, job.boards, engine=job.engine, objective=job.engine_objective
    )
    if found:
        return Rejected(tuple(found))
    from search.train import train  # here, as torch takes seconds to load

    trained = train(job.architecture, data, job.settings, seed=job.seed)
    graph = quantize(
        job.architecture, trained.weights, trained.ranges, data.input_quant, name=job.name
    )
    tflite = to_tflite(graph)
    validation = data.validation.first(job.settings.validation_samples)
    return Candidate(
        tflite=tflite,
        accuracy=int8_accuracy(tflite, validation, data.input_quant),
        accuracy_samples=len(validation),
        float_accuracy=trained.accuracy,
        epochs=trained.epochs,
        train_s=trained.train_s,
        device=trained.device,
    )


def int8_accuracy(tflite: bytes, part: Part, input_quant: InputQuant) -> float:
    """Share of the samples that the .tflite gets right, by the oracle: as a board would."""
    inputs = input_quant.quantised(part.x)
    right = 0
    with Oracle(tflite) as oracle:
        for start in range(0, len(part), ORACLE_BATCH):
            batch = inputs[start : start + ORACLE_BATCH, np.newaxis]
            outputs = oracle.run_many([[x] for x in batch])
            predicted = [int(np.argmax(logits)) for (logits,) in outputs]
            right += int(np.sum(predicted == part.y[start : start + ORACLE_BATCH]))
    return right / len(part)
