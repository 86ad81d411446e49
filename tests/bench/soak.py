"""A bench of weeks in minutes: `python tests/bench/soak.py --jobs 1000 --kills 5`.

A real `hil bench --queue` measures small models on named virtual places, two for each board, whose
boards do wrong what boards do wrong; the bench itself is killed with SIGKILL and gone on with; and
somebody releases what is in quarantine after a while. Then it is proved that

* every job has a record or a typed error, and no job has two;
* every record says what it says without faults: each cycle, all memory;
* the store holds what the bench said was done before each kill, and nothing besides;
* after each kill no process of it is left, and no place is locked;
* the memory of the bench does not grow with the number of jobs.

Exit code 0 if all of it holds. Faults are those of hil/virtual/faults.py.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import psutil
from graphs import Builder

from codegen.export_tflite import export_tflite
from hil.bench import Model, bench_jobs, measure_jobs, open_rig, run_jobs
from hil.health import Ledger
from hil.locks import holders
from hil.record import Record
from hil.rig import Job
from hil.store import Store

ROOT = Path(__file__).resolve().parents[2]
BOARDS = ("nrf52840_dk", "stm32f746g_disco", "nucleo_l4r5zi")
FAULTS = (
    *("garbage", "lost_bytes", "doubled_bytes", "wrong_baud", "lost_lines", "doubled_lines"),
    *("swapped_lines", "late_lines", "silence", "hang", "hard_fault", "reset_loop", "brown_out"),
    *("port_moves", "wrong_board", "stale_firmware", "slow_clock", "locked_chip"),
)
PROBE_FAULTS = ("probe_gone",)  # where images go through the debug probe
METER_FAULTS = ("stuck_trigger", "lost_samples")  # where there is an energy meter
MODELS = 5
MARK = "HIL_SOAK"  # environment variable that every process of a soak inherits
SHOWN_PROBLEMS = 10
GONE_S = 20.0  # for the processes of a killed bench to end
RELEASED_AFTER_S = 3.0  # a person who looks after the boards, in a hurry
ENERGY_SPREAD = 0.02  # between measurements of one model on boards of one type
STEADY_BYTES_PER_JOB = 50_000  # the rows of the final table are some 10 kB each

_MEASURED = re.compile(r"\[\d+/\d+\] .* cycles$")


@dataclass
class Findings:
    """What came of a soak; it passed if `problems` is empty."""

    problems: list[str] = field(default_factory=list)
    figures: list[tuple[str, str]] = field(default_factory=list)

    def add(self, what: str, value: object) -> None:
        self.figures.append((what, f"{value:,}" if isinstance(value, int) else str(value)))

    def check(self, holds: bool, problem: str) -> None:
        if not holds:
            self.problems.append(problem)


@dataclass
class Session:
    """One run of the bench: until it ended, or was killed."""

    acknowledged: int = 0  # records that were said to be there, those of earlier sessions included
    rss: list[tuple[int, int]] = field(default_factory=list)  # (jobs done, bytes)
    code: int | None = None


class Soak:
    """A folder with models, a lab and a store, and the bench that works in it.

    Args:
        folder: for everything.
        places: how many, two or more; neighbours have the same board.
        faults: probability that something goes wrong with one measurement.
        seed: of faults and kills.
        rounds: how often each model is measured on each place.
        flash: how images get onto the boards.
        meter: kind of the energy meters in their supplies, if any.
    """

    def __init__(
        self,
        folder: Path,
        *,
        places: int,
        faults: float,
        seed: int,
        rounds: int,
        flash: str = "direct",
        meter: str | None = None,
    ) -> None:
        self.folder, self.rounds, self._flash, self._meter = folder, rounds, flash, meter
        self._faults, self._seed, self._sessions = faults, seed, 0
        self.places = {
            f"soak_{number}": BOARDS[number // 2 % len(BOARDS)] for number in range(places)
        }
        self.models = [Model(f"net{number}", _model(number)) for number in range(MODELS)]
        for model in self.models:
            (folder / f"{model.name}.tflite").write_bytes(model.tflite)
        (folder / "locks").mkdir()
        self.mark = secrets.token_hex(8)
        self.environment = {
            "HIL_LAB": str(folder / "lab.toml"),
            "HIL_LEDGER": str(folder / "lab.sqlite"),
            "HIL_LOCKS": str(folder / "locks"),
            MARK: self.mark,
        }
        os.environ.update(self.environment)
        self.write_lab()

    @property
    def is_metered(self) -> bool:
        return self._meter is not None

    @property
    def store(self) -> Path:
        return self.folder / "hil.sqlite"

    def jobs(self) -> list[Job]:
        return bench_jobs(self.models, list(self.places), ["tiny"], rounds=self.rounds)

    def write_lab(self) -> None:
        """Each session has faults of its own."""
        names = list(FAULTS)
        names += PROBE_FAULTS if self._flash != "direct" else ()
        names += METER_FAULTS if self._meter else ()
        probability = self._faults / len(names)
        lines = []
        for place, board in self.places.items():
            specs = [
                f'"{name}@random:{probability:.6f}:{self._seed}-{self._sessions}-{place}-{name}"'
                for name in (names if self._faults else ())
            ]
            lines += [f"[places.{place}]", f'board = "{board}"', "virtual = true"]
            lines += [f'flash = "{self._flash}"', f"faults = [{', '.join(specs)}]"]
            lines += [f'meter = {{kind = "{self._meter}"}}'] if self._meter else []
        (self.folder / "lab.toml").write_text("\n".join(lines) + "\n")

    def command(self) -> list[str]:
        models = [str(self.folder / f"{model.name}.tflite") for model in self.models]
        options = ["--board", ",".join(self.places), "--rounds", str(self.rounds)]
        options += ["--queue", "soak", "--store", str(self.store)]
        return [sys.executable, "-m", "hil", "bench", *models, *options]

    def run_session(
        self,
        known: int,
        kill_at: int | None,
        *,
        delay_s: float = 0.0,
        how: signal.Signals = signal.SIGKILL,
    ) -> Session:
        """Runs the bench, which has `known` records, until it ends or is sent a signal.

        The signal, `how`, comes `delay_s` after there are `kill_at` records.
        """
        session = Session(known)
        self._sessions += 1
        self.write_lab()
        with (
            open(self.folder / f"session_{self._sessions}.log", "wb") as log,
            subprocess.Popen(
                self.command(), cwd=ROOT, stdout=log, stderr=subprocess.PIPE, text=True
            ) as bench,
        ):
            process = psutil.Process(bench.pid)
            killer: threading.Timer | None = None
            assert bench.stderr is not None
            for line in bench.stderr:
                log.write(line.encode())
                log.flush()
                if not _MEASURED.match(line.strip()):
                    continue
                session.acknowledged += 1
                with contextlib.suppress(psutil.Error):
                    session.rss.append((session.acknowledged, process.memory_info().rss))
                if kill_at is not None and session.acknowledged >= kill_at and killer is None:
                    killer = threading.Timer(delay_s, bench.send_signal, [how])
                    killer.start()
            session.code = bench.wait()
            if killer is not None:
                killer.cancel()
        return session

    def left_behind(self) -> list[str]:
        """Processes of the soak, but for this one, that do not end by themselves."""
        deadline = time.monotonic() + GONE_S
        while (left := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left

    def _processes(self) -> list[str]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and process.environ().get(MARK) == self.mark:
                    found.append(" ".join(process.cmdline())[:100])
        return found

    @contextlib.contextmanager
    def caretaker(self) -> Iterator[None]:
        """Somebody who releases places from quarantine, as after looking at them."""
        stop = threading.Event()

        def care() -> None:
            with Ledger() as ledger:
                while not stop.wait(RELEASED_AFTER_S):
                    for place in ledger.quarantines():
                        ledger.release(place)

        thread = threading.Thread(target=care)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def soak(
    folder: Path,
    *,
    jobs: int,
    places: int,
    faults: float,
    kills: int,
    seed: int,
    flash: str = "direct",
    meter: str | None = None,
) -> Findings:
    """Runs a soak in an empty folder; arguments as on the command line."""
    findings = Findings()
    rounds = max(1, round(jobs / (places * MODELS)))
    bench = Soak(folder, places=places, faults=0.0, seed=seed, rounds=1)
    truth = _truth(bench)
    folder = folder / "run"
    folder.mkdir()
    bench = Soak(
        folder, places=places, faults=faults, seed=seed, rounds=rounds, flash=flash, meter=meter
    )
    wanted = len(bench.jobs())
    dice = random.Random(seed)
    kill_at = sorted(dice.sample(range(1, wanted), kills))
    started = time.monotonic()
    sessions = []
    kept = 0
    with bench.caretaker():
        for count in [*kill_at, None]:
            session = bench.run_session(kept, count, delay_s=dice.uniform(0.0, 1.5))
            sessions.append(session)
            for process in bench.left_behind():
                findings.problems.append(f"after session {len(sessions)}: still runs: {process}")
            for holder in holders():
                findings.problems.append(f"after session {len(sessions)}: {holder.place} is locked")
            with Store(bench.store) as store:
                kept = len(store.load_queue("soak").records())
            findings.check(
                kept >= session.acknowledged,
                f"session {len(sessions)} said that {session.acknowledged} records were there, "
                f"the store has {kept}",
            )
    seconds = time.monotonic() - started
    _check_store(bench, truth, findings)
    _add_figures(bench, sessions, wanted, seconds, findings)
    return findings


def _truth(bench: Soak) -> dict[tuple[str, str], Record]:
    """What is measured without faults, by model and board."""
    rig_jobs = bench_jobs(bench.models, list(bench.places), ["tiny"])
    truth: dict[tuple[str, str], Record] = {}
    with open_rig(measure_jobs()) as rig:
        for done in run_jobs(rig, rig_jobs):
            assert done.record is not None, f"without faults: {done.error}"
            known = truth.setdefault((done.job.model, done.record.board), done.record)
            assert _figures(known) == _figures(done.record), "places with one board differ"
    return truth


def _figures(record: Record) -> tuple[object, ...]:
    """What must not depend on place and time."""
    return (
        record.model,
        record.board,
        record.latency_cycles,
        record.sram_bytes,
        record.flash_bytes,
        record.firmware_sha256,
        record.outputs_match,
        record.outputs_checked,
        record.source,
    )


def _check_store(bench: Soak, truth: dict[tuple[str, str], Record], findings: Findings) -> None:
    """Every job ended, and every record is right."""
    with Store(bench.store) as store:
        queue = store.load_queue("soak")
        records, failures = queue.records(), queue.failures()
        stored = store.records()
    moved = 0
    for number, job in enumerate(bench.jobs()):
        record = records.get(number)
        if record is None:
            findings.check(number in failures, f"job {number} has neither record nor error")
            continue
        findings.check(
            _figures(record) == _figures(truth[job.model, bench.places[job.where.asked]]),
            f"job {number}, {job.text} on {record.place}: a wrong number in the record",
        )
        findings.check(
            record.place in job.where.all and bench.places[record.place] == record.board,
            f"job {number}: measured on {record.place}, which may not run it",
        )
        energy = record.energy_uj.source if record.energy_uj else "no energy"
        findings.check(
            energy.startswith("estimate:") and ("through" in energy) == bench.is_metered,
            f"job {number}: energy of an emulated board by {energy!r}",
        )
        moved += record.place != job.where.asked
    for (model, board), values in _energies(records.values()).items():
        spread = max(values) / min(values) - 1
        findings.check(
            spread < ENERGY_SPREAD, f"{model} on {board}: energies differ by {spread:.1%}"
        )
    findings.check(
        len(stored) == len(records), f"{len(records)} jobs done, {len(stored)} records stored"
    )
    findings.add("right records", len(records))
    findings.add("  of them measured by another place with the board", moved)
    kinds = Counter(kind for kind, _ in failures.values())
    findings.add("typed failures", ", ".join(f"{n} {kind}" for kind, n in kinds.items()) or "none")


def _energies(records: Iterable[Record]) -> dict[tuple[str, str], list[float]]:
    """Medians in uJ, by model and board."""
    found: dict[tuple[str, str], list[float]] = {}
    for record in records:
        if record.energy_uj is not None:
            found.setdefault((record.model.name, record.board), []).append(record.energy_uj.median)
    return found


def _add_figures(
    bench: Soak, sessions: list[Session], wanted: int, seconds: float, findings: Findings
) -> None:
    findings.figures.insert(0, ("jobs", f"{wanted:,} on {len(bench.places)} places"))
    findings.figures.insert(1, ("kills of the bench", str(len(sessions) - 1)))
    events: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    with Ledger() as ledger:
        for place in bench.places:
            for total in ledger.totals(place):
                events[total.event] += total.count
                if total.event == "fault":
                    errors[total.error] += total.count
    findings.add("faults met", events["fault"])
    findings.add("  by type", ", ".join(f"{n} {kind}" for kind, n in errors.most_common()))
    for event in ("reset", "power cycle", "reopen", "recovered", "quarantine", "release"):
        findings.add(f"  {event}", events[event])
    longest = max(sessions, key=lambda session: len(session.rss))
    per_job = _growth(longest.rss)
    findings.check(per_job < STEADY_BYTES_PER_JOB, f"the bench grows by {per_job:,.0f} bytes a job")
    if longest.rss:
        largest = max(rss for session in sessions for _, rss in session.rss)
        findings.add("largest memory of the bench", f"{largest / 1e6:,.0f} MB")
        findings.add("  growth in its longest session", f"{per_job:,.0f} bytes a job")
    findings.add("time", f"{seconds:,.0f} s, {wanted / seconds:.2f} jobs a second")


def _growth(rss: list[tuple[int, int]]) -> float:
    """Bytes a job, by least squares, after the first third of a session, which fills caches."""
    steady = rss[len(rss) // 3 :]
    if len(steady) < 20:
        return 0.0
    done, resident = np.array(steady, dtype=np.float64).T
    return float(np.polyfit(done, resident, 1)[0])


def _model(seed: int) -> bytes:
    """A small network; each seed gives another."""
    builder = Builder(np.random.default_rng(seed), name="net")
    x = builder.input((1, 6, 6, 2))
    x = builder.conv2d(x, 4 + seed, (3, 3), padding="SAME")
    x = builder.reshape(x, (1, 36 * (4 + seed)))
    return export_tflite(builder.graph([builder.fully_connected(x, 5)]))


def main() -> int:
    """Soaks in a new folder, prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--places", type=int, default=4, help="an even number")
    parser.add_argument("--faults", type=float, default=0.1, help="share of measurements")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--flash", default="direct", help="direct, pyocd or openocd")
    parser.add_argument("--meter", help="ppk2 or lpm01a, in the supply of every board")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hil-soak-"))
    print(f"working in {folder}", flush=True)
    findings = soak(folder, **vars(options))
    for what, value in findings.figures:
        print(f"{what:<52} {value}")
    for problem in findings.problems[:SHOWN_PROBLEMS]:
        print(f"PROBLEM: {problem}")
    if len(findings.problems) > SHOWN_PROBLEMS:
        print(f"and {len(findings.problems) - SHOWN_PROBLEMS:,} problems more")
    print("failed" if findings.problems else "passed")
    return 1 if findings.problems else 0


if __name__ == "__main__":
    sys.exit(main())
