"""Settings of a study, from the command line or a TOML file. Not here: running it (loop.py)."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hil.tables import read_toml, table_to_dataclass
from search.data import SearchData
from search.errors import SettingsError
from search.reward import objectives
from search.space import get_space
from search.strategy import get_strategy

#: Settings that may change when a study is resumed: how far it goes and what of the machine it
#: uses, not what it finds.
FREE_SETTINGS = ("name", "trials", "workers", "max_failures", "data_dir")

#: Those whose memory is known before they run; that of `tflm` is not, and `hil bench` measures it.
SEARCHED_ENGINES = ("tiny", "reference")

MAX_WORKERS = 256  # processes: a slip of the finger should not bring the machine down


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How candidates are trained; part of a study file.

    Adam with decoupled weight decay under a one-cycle learning rate; the weights of the best epoch
    are kept. Training ends after `epochs`, after `patience` epochs without a better validation
    loss, or after `budget_s` seconds (0: no limit; with one, results depend on the machine's
    speed). `train_samples` and `validation_samples` of 0 mean all of them. `deadline_s` ends a
    training process that hangs. `device` "auto" is a GPU if there is one.
    """

    epochs: int = 20
    batch: int = 64
    learning_rate: float = 0.02
    weight_decay: float = 3e-4
    patience: int = 6
    train_samples: int = 0
    validation_samples: int = 0
    budget_s: float = 0.0
    deadline_s: float = 1800.0
    device: str = "auto"

    def __post_init__(self) -> None:
        for key in ("epochs", "batch", "patience"):
            if getattr(self, key) < 1:
                raise ValueError(f"key {key!r} is {getattr(self, key)}; it should be at least 1")
        for key in ("weight_decay", "train_samples", "validation_samples", "budget_s"):
            if not 0 <= getattr(self, key) < math.inf:
                raise ValueError(f"key {key!r} is {getattr(self, key)}; it should be at least 0")
        for key in ("learning_rate", "deadline_s"):
            if not 0 < getattr(self, key) < math.inf:
                raise ValueError(f"key {key!r} is {getattr(self, key)}; it should be more than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySettings:
    """One study.

    Attributes:
        name: under which it is stored and resumed.
        places: where every candidate is measured.
        space: name of a search space, narrowed or widened by `space_options`.
        strategy: name of a strategy, tuned by `strategy_options`.
        data: name of a data set, or an .npz file; `data_dir` is the folder for those that need one.
        objectives: metrics of search.reward, all to be minimised.
        trials: how many networks are proposed in all.
        seed: of proposals and trainings.
        engine, engine_objective: how candidates are turned into C.
        pending: proposals made before the oldest open one is known; see search.loop.
        workers: training processes.
        max_failures: failures of one kind in a row that end the run.
        training: how candidates are trained.
    """

    name: str
    places: tuple[str, ...]
    space: str = "mini_nas"
    strategy: str = "regularized_evolution"
    data: str = "digits"
    data_dir: str | None = None
    objectives: tuple[str, ...] = ("error", "latency_us", "sram_bytes")
    trials: int = 40
    seed: int = 0
    engine: str = "tiny"
    engine_objective: Literal["latency", "sram", "flash"] = "latency"
    pending: int = 4
    workers: int = 1
    max_failures: int = 3
    space_options: dict[str, tuple[int, ...]] = field(default_factory=dict)
    strategy_options: dict[str, int] = field(default_factory=dict)
    training: TrainSettings = field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        for key in ("trials", "pending", "workers", "max_failures"):
            if getattr(self, key) < 1:
                raise SettingsError(key, f"is {getattr(self, key)}; it should be at least 1")
        if self.workers > MAX_WORKERS:
            raise SettingsError("workers", f"is {self.workers}; it should be at most {MAX_WORKERS}")
        if self.seed < 0:
            raise SettingsError("seed", f"is {self.seed}; it should not be negative")
        if not self.places or len(set(self.places)) != len(self.places):
            raise SettingsError("places", "should name one or more places, each once")

    def check(self) -> None:
        """Raises SearchError if the engine, space, strategy, option or objective is unknown."""
        if self.engine not in SEARCHED_ENGINES:
            known = ", ".join(SEARCHED_ENGINES)
            raise SettingsError("engine", f"{self.engine!r} cannot be searched with, only {known}")
        space = get_space(self.space, self.space_options)
        wanted = objectives(self.objectives, self.places)
        get_strategy(
            self.strategy,
            space,
            objectives=len(wanted),
            seed=self.seed,
            options=self.strategy_options,
        )

    def identity(self, data: SearchData) -> dict[str, Any]:
        """What must be equal for a study to be resumed, as JSON; the data by their digest."""
        values = dataclasses.asdict(self)
        for key in FREE_SETTINGS:
            del values[key]
        del values["training"]["deadline_s"]
        return {**values, "data_sha256": data.sha256}


def load_study_file(path: Path) -> StudySettings:
    """The settings of a STUDY.toml: fields of StudySettings; `data_dir` is relative to the file.

    Raises:
        BoardFileError: not TOML, or a key that is unknown, missing or of the wrong type.
        SearchError: a value that makes no sense.
    """
    settings = table_to_dataclass(StudySettings, read_toml(path), path)
    if settings.data_dir is None:
        return settings
    return dataclasses.replace(settings, data_dir=str(path.parent / settings.data_dir))
