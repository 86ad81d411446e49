"""Errors of the search; each carries its data as fields and builds its message in one place.

SearchError
├─ SettingsError    a study that asks for something unknown or senseless
├─ SpaceError       a space, an option of it, or a point that does not belong to it
├─ SpaceExhausted   every point of the space has been proposed
├─ DataError        a data set that is missing or malformed
├─ TrainingError    a training that diverged
├─ WorkerLost       a training process that died or ran past its deadline
└─ StudyStopped     a study that gave up after several failures of one kind in a row
"""

from __future__ import annotations

from pathlib import Path


class SearchError(Exception):
    """Base of every error of the search that the command line shows as a sentence."""

    exit_code = 1


class SettingsError(SearchError):
    """A setting of a study that is not known or makes no sense."""

    exit_code = 2

    def __init__(self, key: str, problem: str) -> None:
        self.key, self.problem = key, problem
        super().__init__(f"setting {key!r}: {problem}")


class SpaceError(SearchError):
    """A search space that does not exist, or a value that is not part of it."""

    exit_code = 2

    def __init__(self, space: str, problem: str) -> None:
        self.space, self.problem = space, problem
        super().__init__(f"space {space!r}: {problem}")


class SpaceExhausted(SearchError):
    """There is no point left that was not proposed already."""

    def __init__(self, space: str, proposed: int) -> None:
        self.space, self.proposed = space, proposed
        super().__init__(f"space {space!r} has no network left: all {proposed:,} were proposed")


class DataError(SearchError):
    """A data set that is missing or does not hold what it should."""

    exit_code = 2

    def __init__(self, source: Path | str, problem: str) -> None:
        self.source, self.problem = source, problem
        super().__init__(f"data {source}: {problem}")


class TrainingError(SearchError):
    """A training that gave no usable network."""


class WorkerLost(SearchError):
    """A training process is gone."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the training process {reason}")


class StudyStopped(SearchError):
    """Several trials failed in the same way one after the other: something is broken."""

    def __init__(self, study: str, kind: str, count: int, first_reason: str) -> None:
        self.study, self.kind, self.count, self.first_reason = study, kind, count, first_reason
        super().__init__(
            f"study {study!r} stopped after {count} failures in a row of kind {kind}; the first "
            f"was: {first_reason}; mend it and run the same command to go on"
        )
