"""The README's examples do what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import search.strategy
from search.space import get_space
from search.strategy import get_strategy, strategy_names
from search.study import load_study_file
from search.trial import Measured, Trial

README = (Path(__file__).resolve().parents[2] / "search" / "README.md").read_text()


def example(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found is not None, f"the README has no {language} example"
    return found[1]


def test_the_study_file_is_one(tmp_path: Path) -> None:
    (tmp_path / "cifar.toml").write_text(example("toml"))

    settings = load_study_file(tmp_path / "cifar.toml")

    settings.check()
    assert settings.trials == 40 and settings.training.train_samples == 5000


def test_the_strategy_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy_names()  # loads the real ones, which stay registered
    monkeypatch.setattr(search.strategy, "_STRATEGIES", {})
    exec(example("python"), {})  # as a file of its own: nothing is missing

    one = get_strategy("hill_climbing", get_space("mini_nas"), objectives=1, seed=0)
    (first,) = one.ask(1)
    one.tell([Trial(0, first, Measured((0.5,)))])
    before, after = first.to_dict(), one.ask(1)[0].to_dict()

    assert sum(before[key] != after[key] for key in before.keys() & after.keys()) == 1
