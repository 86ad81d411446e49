"""Every fault of virtual boards: its own error, and a right record when it is over."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from hil import session, wire
from hil.board import Board, board_ids, get_board
from hil.build import FIRMWARE_DIR, Firmware, build
from hil.errors import (
    ChipLocked,
    ClockMismatch,
    FirmwareMismatch,
    FlashError,
    HilError,
    LinkError,
    LinkGarbled,
    LinkTimeout,
    ProbeGone,
    ResetLoop,
    SamplesLost,
    TargetFault,
    TriggerError,
    VerifyFailed,
    WireError,
    WrongBoard,
)
from hil.inputs import random_inputs
from hil.manifest import read_manifest
from hil.record import Record
from hil.session import Procedure, measure
from hil.virtual.options import VirtualOptions
from hil.virtual.place import VirtualPlace

ECHO = FIRMWARE_DIR / "models" / "echo"
PROCEDURE = Procedure(inputs=3, warmup=1, repeats=3, layers=True)
PATIENCE_S = 60.0  # for what comes at once on an idle machine
SHORT_S = 0.3  # for what never comes


@dataclass(frozen=True)
class Case:
    """A fault, the error it ends in, and which deadline passes until then."""

    fault: str
    error: type[HilError]
    says: str = ""
    waits: str = ""  # boot, reply, run
    parameters: tuple[tuple[str, object], ...] = ()
    exactly: bool = True

    @property
    def table(self) -> str:
        given = "".join(f"{key} = {value!r}\n" for key, value in self.parameters)
        return f'name = "{self.fault}"\n{given}'

    def __str__(self) -> str:
        return "-".join([self.fault, *(str(value).strip() for _, value in self.parameters)])


def case(fault: str, error: type[HilError], says: str = "", **rest: object) -> Case:
    own = {key: rest.pop(key) for key in ("waits", "exactly") if key in rest}
    return Case(fault, error, says, parameters=tuple(rest.items()), **own)  # type: ignore[arg-type]


EVERYWHERE = [
    case("garbage", WireError, "corrupt answer to 'hello'"),
    case("wrong_baud", LinkGarbled, "that is no text"),
    case("silence", LinkTimeout, "no boot message.*nothing", waits="boot"),
    case("brown_out", VerifyFailed, "the flash holds 0xff at 0x0"),
    case("hard_fault", TargetFault, "hard pc=0x.*the core broke down, pc 0x"),
    case("wrong_board", WrongBoard, "answers board"),
    case("slow_clock", ClockMismatch, "does not hang on its crystal"),
    case("locked_chip", ChipLocked, "only a mass erase opens it"),
]
RUN, OUT, TIME = "m-rig-run", "m-rig-out", "m-rig-time"
ON_ONE = [
    case("garbage", WireError, "corrupt answer to 'run'", rate=0.1, lines=RUN),
    case("garbage", WireError, "corrupt answer to 'out'", rate=0.05, lines=OUT),
    case("garbage", WireError, "'time'", rate=0.2, lines=TIME),
    case("garbage", WireError, "was refused", rate=0.1, lines="rig", direction="to_board"),
    case("lost_bytes", WireError, "corrupt answer to 'hello'"),
    case("lost_bytes", WireError, "corrupt answer to 'run'", rate=0.1, lines=RUN),
    case(
        "lost_bytes",
        LinkTimeout,
        "'time'",
        waits="reply",
        rate=1.0,
        lines="rig time",
        direction="to_board",
    ),
    case("doubled_bytes", WireError, "corrupt answer to 'hello'"),
    case("doubled_bytes", WireError, "corrupt answer to 'run'", rate=0.1, lines=RUN),
    case("wrong_baud", LinkGarbled, "that is no text", baud=9_600),
    case("lost_lines", WireError, "no answer to 'run'", rate=1.0, lines=RUN),
    case("lost_lines", WireError, "(corrupt|no) answer to 'run'", rate=0.5, lines=RUN, seed=3),
    case("lost_lines", LinkTimeout, "no boot message", waits="boot", rate=1.0, lines="m-ready"),
    case("doubled_lines", WireError, "corrupt answer to 'hello'", rate=1.0, lines="m-rig"),
    case("doubled_lines", WireError, "corrupt answer to 'run'", rate=1.0, lines=RUN),
    case("doubled_lines", WireError, "no answer", rate=1.0, lines="m-ready"),
    case("swapped_lines", WireError, "no answer to 'run'", rate=1.0, lines=RUN),
    case("late_lines", WireError, "no answer to 'run'", rate=1.0, lines=RUN, by=2),
    case("silence", LinkTimeout, "no answer to", waits="run", after_lines=10),
    case("hang", LinkTimeout, "no answer to 'run'", waits="run"),
    case("hang", LinkTimeout, "no answer to 'run'", waits="run", command=2),
    case("reset_loop", ResetLoop, "it has started 5 times in a row"),
    case("reset_loop", ResetLoop, "it has started 5 times in a row", after_lines=4),
    case("reset_loop", WireError, "restarted while it answered '", after_lines=8),
    case("port_moves", LinkError, "the device is gone"),
    case("slow_clock", ClockMismatch, "does not hang on its crystal", percent=-25.0),
]


@dataclass
class Bench:
    """A board whose flashing 2 k + 1 has fault number k, and every other none."""

    place: VirtualPlace
    firmware: Firmware
    cases: list[Case]
    flashings: int = 0

    def measure(self) -> Record:
        self.flashings += 1
        manifest = read_manifest(ECHO)
        inputs = [random_inputs(manifest.inputs, seed) for seed in PROCEDURE.seeds]
        expected = [b"".join(array.tobytes() for array in arrays) for arrays in inputs]
        return measure(self.place, self.firmware, manifest, expected, PROCEDURE)

    def go_to(self, case: Case) -> None:
        """The next flashing is the one with this fault."""
        number = 2 * self.cases.index(case) + 1
        assert self.flashings < number, "tests of one board run in the order of its cases"
        while self.flashings < number - 1:
            self.flashings += 1
            with contextlib.suppress(VerifyFailed, ChipLocked):  # the faults of cases not run
                self.place.flash(self.firmware.elf)


@pytest.fixture(scope="module")
def open_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Bench]]:
    """A function that gives the bench of a board, the same one each time."""
    benches: dict[str, Bench] = {}

    def bench(board: Board, cases: list[Case]) -> Bench:
        if board.id not in benches:
            plan = tmp_path_factory.mktemp("plan") / "plan.toml"
            plan.write_text(
                "".join(
                    f"[[fault]]\nwhen = {2 * k + 1}\n{case.table}" for k, case in enumerate(cases)
                )
            )
            place = VirtualPlace(board, VirtualOptions(faults=(str(plan),)))
            benches[board.id] = Bench(place, build(ECHO, board), cases)
        return benches[board.id]

    yield bench
    for opened in benches.values():
        opened.place.close()


@pytest.fixture(scope="module")
def right_cycles() -> Callable[[Board], object]:
    """What a board without faults measures."""
    found: dict[str, object] = {}

    def measured(board: Board) -> object:
        if board.id not in found:
            with VirtualPlace(board) as place:
                found[board.id] = cycles_of(Bench(place, build(ECHO, board), []).measure())
        return found[board.id]

    return measured


def cycles_of(record: Record) -> object:
    return record.latency_cycles, record.layers, record.sram_bytes


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    set_deadlines(monkeypatch, "")


def set_deadlines(monkeypatch: pytest.MonkeyPatch, waits: str) -> None:
    """Long ones, but for the one that is going to pass."""
    run_s = SHORT_S if waits == "run" else PATIENCE_S
    monkeypatch.setattr(session, "BOOT_S", SHORT_S if waits == "boot" else PATIENCE_S)
    monkeypatch.setattr(wire, "REPLY_S", SHORT_S if waits == "reply" else PATIENCE_S)
    monkeypatch.setattr(session, "inference_s", lambda place, manifest: run_s)


def check(case: Case, bench: Bench, right: object, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.go_to(case)
    set_deadlines(monkeypatch, case.waits)
    with pytest.raises(case.error, match=case.says) as caught:
        bench.measure()
    assert not case.exactly or type(caught.value) is case.error

    set_deadlines(monkeypatch, "")
    assert cycles_of(bench.measure()) == right


NRF = get_board("nrf52840_dk")
CASES = {board: EVERYWHERE + (ON_ONE if board == NRF.id else []) for board in board_ids()}


@pytest.mark.parametrize(
    ("board_id", "case"),
    [(board, case) for board, cases in CASES.items() for case in cases],
    ids=str,
)
def test_a_fault_is_an_error_of_its_own_and_leaves_nothing_behind(
    board_id, case, open_bench, right_cycles, monkeypatch
):
    board = get_board(board_id)

    check(case, open_bench(board, CASES[board_id]), right_cycles(board), monkeypatch)


@pytest.fixture
def echo_on() -> Iterator[Callable[..., Bench]]:
    """A function that opens an nRF52840 DK with faults."""
    with contextlib.ExitStack() as stack:

        def open_place(*faults: str) -> Bench:
            place = stack.enter_context(VirtualPlace(NRF, VirtualOptions(faults=faults)))
            return Bench(place, build(ECHO, NRF), [])

        yield open_place


def test_a_board_on_which_nothing_was_written_answers_as_another_build(echo_on):
    bench = echo_on("stale_firmware")

    with pytest.raises(FirmwareMismatch, match="the board answers with build") as caught:
        bench.measure()
    assert type(caught.value) is FirmwareMismatch
    assert bench.measure().outputs_match


def test_when_nothing_was_written_the_firmware_before_runs(echo_on, assemble, monkeypatch):
    bench = echo_on("stale_firmware@2")
    bench.place.flash(assemble(NRF, "start: b start\n"))

    set_deadlines(monkeypatch, "boot")
    with pytest.raises(LinkTimeout, match="no boot message"):
        bench.measure()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "error"),
    [("brown_out", FlashError), ("probe_gone", ProbeGone), ("locked_chip", ChipLocked)],
)
@pytest.mark.parametrize("board_id", board_ids())
def test_a_fault_of_a_debugger_is_over_at_the_next_flashing(board_id, fault, error, right_cycles):
    """Twice in the same way: a probe that returns at another address is found there."""
    board = get_board(board_id)
    with VirtualPlace(board, VirtualOptions(flash="pyocd", faults=(fault,))) as place:
        bench = Bench(place, build(ECHO, board), [])
        before = place.probe

        with pytest.raises(error) as caught:
            bench.measure()

        assert type(caught.value) is error
        assert (place.probe != before) == (fault == "probe_gone")
        assert cycles_of(bench.measure()) == right_cycles(board)


@pytest.mark.parametrize(
    ("meter", "lost"),
    # an LPM01A does not number its samples: that some are lost may show in the window's length
    [("ppk2", SamplesLost), ("lpm01a", (SamplesLost, TriggerError))],
)
def test_a_fault_of_the_meter_voids_the_energy(meter, lost, right_cycles):
    options = VirtualOptions(meter=meter, faults=("stuck_trigger", "lost_samples@2"))
    with VirtualPlace(NRF, options) as place:
        bench = Bench(place, build(ECHO, NRF), [])
        with pytest.raises(TriggerError, match="the trigger pin"):
            bench.measure()
        with pytest.raises(lost):
            bench.measure()

        record = bench.measure()

    assert record.latency_cycles == right_cycles(NRF)[0]
    assert record.energy_uj.source == f"estimate:power model through a virtual {meter}"


def test_without_a_meter_its_faults_do_no_harm(echo_on, right_cycles):
    bench = echo_on("stuck_trigger", "lost_samples")

    assert cycles_of(bench.measure()) == right_cycles(NRF)


def test_a_fault_that_lasts_is_over_after_a_power_cycle(
    echo_on, right_cycles, tmp_path, monkeypatch
):
    (tmp_path / "plan.toml").write_text('[[fault]]\nname = "silence"\nuntil = "power"\n')
    bench = echo_on(str(tmp_path / "plan.toml"))

    set_deadlines(monkeypatch, "boot")
    for cure in (lambda: None, bench.place.reset):
        cure()
        with pytest.raises(LinkTimeout):
            bench.measure()

    set_deadlines(monkeypatch, "")
    bench.place.power_cycle()
    assert cycles_of(bench.measure()) == right_cycles(NRF)


def test_a_port_that_moved_is_found_under_its_new_name(echo_on):
    bench = echo_on("port_moves")
    before = bench.place.port

    with pytest.raises(LinkError):
        bench.measure()

    assert bench.place.port != before


def test_a_program_that_connects_to_the_probe_may_count_as_a_flashing():
    def is_open(address: str) -> bool:
        _, host, port = address.split(":")
        requests = [("write_dp", [4, 5 << 28]), ("read_ap", [1 << 24 | 0x0C])]  # APPROTECTSTATUS
        with socket.create_connection((host, int(port)), PATIENCE_S) as client:
            for name, arguments in requests:
                request = {"id": 1, "request": name, "arguments": arguments}
                client.sendall(json.dumps(request).encode() + b"\n")
            answers = client.makefile()
            said = [json.loads(answers.readline()) for _ in requests]
            client.shutdown(socket.SHUT_WR)
            answers.read()  # until the probe is free again
        return bool(said[1]["result"])

    with VirtualPlace(NRF, VirtualOptions(faults=("locked_chip@2",))) as place:
        place.count_clients()

        assert [is_open(place.probe) for _ in range(3)] == [True, False, True]
