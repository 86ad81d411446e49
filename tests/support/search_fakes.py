"""Stand-ins for the slow parts of a study: work without training, places without boards."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from lab_fakes import JournalLab
from records import make_record

from codegen.limits import BoardLimits
from hil.health import Ledger
from hil.lab import Place
from hil.record import ModelId, Record, SramBytes
from hil.rig import Job as BoardJob
from hil.rig import Rig, Stage
from hil.where import Where
from search.candidate import Candidate, Job, Rejected
from search.constraints import Violation
from search.data import Part, SearchData

PLACES = ("virtual:nrf52840_dk", "virtual:stm32f746g_disco")
LIMITS = {
    PLACES[0]: BoardLimits("nrf52840_dk", "cortex-m4", ("dsp",), 262_144, 1_048_576),
    PLACES[1]: BoardLimits("stm32f746g_disco", "cortex-m7", ("dsp",), 327_680, 1_048_576),
}


WHERES = {place: Where(place, (place,)) for place in PLACES}


def make_data(n: int = 40, shape: tuple[int, int, int] = (8, 8, 1)) -> SearchData:
    """Random images of two classes."""
    rng = np.random.default_rng(0)

    def part(count: int) -> Part:
        x = rng.integers(0, 256, size=(count, *shape)).astype(np.uint8)
        return Part(x, np.arange(count) % 2)

    return SearchData("random", 2, part(n), part(n // 2))


def pretend(job: Job, _: SearchData) -> Rejected | Candidate:
    """No training: accuracy grows with the weights, networks of more than 30,000 do not fit."""
    weights = job.architecture.weights
    if weights > 30_000:
        return Rejected((Violation("nrf52840_dk", "sram", weights, 30_000),))
    tflite = f"{job.architecture.hash} {job.seed}".encode()
    accuracy = 1 - 10 / (10 + weights**0.5)
    return Candidate(tflite, accuracy, 20, accuracy, 1, 0.01, "cpu")


def pretend_slowly(job: Job, data: SearchData) -> Rejected | Candidate:
    """As `pretend`, in 0.15 s."""
    time.sleep(0.15)
    return pretend(job, data)


def break_down(job: Job, _: SearchData) -> Rejected | Candidate:
    """Fails for every network."""
    raise RuntimeError(f"no training for {job.name}")


def exit_at_once(job: Job, _: SearchData) -> Rejected | Candidate:
    """The training process dies, as when memory runs out."""
    import os

    os._exit(9)


def pretend_record(tflite: bytes, place: str, engine: str) -> Record:
    """A record whose cycles depend on the model and the place only."""
    digest = hashlib.sha256(tflite).hexdigest()
    cycles = 1000 + int(digest[:4], 16) + (7 if place == PLACES[1] else 0)
    return make_record(
        cycles=cycles,
        place=place,
        engine=engine,
        model=ModelId("m", digest, 500, 400),
        sram_bytes=SramBytes(int(digest[4:8], 16), 0, 512, 300, int(digest[4:8], 16) + 812),
    )


class FakeBenches:
    """Measures on places without boards; keeps what was measured where, in order."""

    def __init__(
        self,
        *,
        delay_s: float = 0.0,
        on_measure: Callable[[str, str], None] = lambda place, name: None,
        journal: Path | None = None,
    ) -> None:
        self.measured: list[tuple[str, str]] = []
        self.lab = JournalLab()
        self._delay_s, self._on_measure, self._journal = delay_s, on_measure, journal
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def rig(self) -> Iterator[Rig]:
        """A rig that measures here."""
        with (
            Ledger() as ledger,
            Rig(self._measure, open_place=self.lab.open, ledger=ledger) as rig,
        ):
            yield rig

    def _measure(self, place: Place, job: BoardJob, stage: Stage) -> Record:
        self._on_measure(place.name, job.model)
        time.sleep(self._delay_s)
        with self._lock:
            self.measured.append((place.name, job.model))
            if self._journal is not None:
                with self._journal.open("a") as journal:
                    journal.write(f"{place.name} {job.model} {job.engine}\n")
        return pretend_record(job.tflite, place.name, job.engine)
