"""The bench against faults of boards and against kills, at small scale."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))


@pytest.mark.slow
def test_a_bench_with_faults_and_a_kill_gives_right_records_or_typed_errors(tmp_path, monkeypatch):
    from soak import soak

    for variable in ("HIL_LAB", "HIL_LEDGER", "HIL_LOCKS", "HIL_SOAK"):
        monkeypatch.setenv(variable, "")  # soak sets them: as before afterwards

    findings = soak(tmp_path, jobs=40, places=4, faults=0.2, kills=1, seed=5)

    assert findings.problems == []
    assert dict(findings.figures)["jobs"] == "40 on 4 places"
