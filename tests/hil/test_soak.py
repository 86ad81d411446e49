"""The bench against faults of boards, kills and Ctrl-C, at small scale."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from hil.locks import holders
from hil.store import Store

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """What a soak sets is as before afterwards."""
    for variable in ("HIL_LAB", "HIL_LEDGER", "HIL_LOCKS", "HIL_SOAK"):
        monkeypatch.setenv(variable, "")


def test_a_bench_with_faults_and_a_kill_gives_right_records_or_typed_errors(tmp_path):
    from soak import soak

    findings = soak(tmp_path, jobs=40, places=4, faults=0.2, kills=1, seed=5)

    assert findings.problems == []
    assert dict(findings.figures)["jobs"] == "40 on 4 places"


def test_ctrl_c_ends_a_bench_soon_and_leaves_nothing_behind(tmp_path):
    from soak import Soak

    bench = Soak(tmp_path, places=2, faults=0.0, seed=1, rounds=100)

    session = bench.run_session(0, 3, delay_s=0.1, how=signal.SIGINT)

    assert session.code == 128 + signal.SIGINT
    assert bench.left_behind() == []
    assert holders() == []
    with Store(bench.store) as store:
        records = store.load_queue("soak").records()
        assert session.acknowledged <= len(records) < len(bench.jobs())
        assert len(store.records()) == len(records)
    log = (tmp_path / "session_1.log").read_text()
    assert "queue soak: stopped; the same command does the rest" in log
    assert "fault" not in log  # what was abandoned is nobody's fault
