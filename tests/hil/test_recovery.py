"""Which fault is answered by what, and what the ledger says of it."""

from __future__ import annotations

import inspect

import pytest
from lab_fakes import JournalLab, JournalPlace

import hil.errors
from codegen.errors import CodegenError
from hil.errors import (
    ChipLocked,
    ClockMismatch,
    DoesNotFit,
    FirmwareMismatch,
    FlashError,
    HilError,
    LinkError,
    LinkTimeout,
    OutputMismatch,
    PlaceBusy,
    PlaceQuarantined,
    PowerError,
    ProbeGone,
    SamplesLost,
    TargetFault,
    TriggerError,
    UsageError,
    WireError,
    WrongBoard,
)
from hil.health import Ledger
from hil.recovery import QUARANTINE_AFTER, KeptPlace, Step, treatment_of

SILENT = LinkTimeout("/dev/ttyX", 2.0, b"", "reply to hello")


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "lab.sqlite") as opened:
        yield opened


@pytest.fixture
def lab():
    return JournalLab()


class Failing:
    """Work that fails with each error in turn, then gives 42."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.attempts = 0

    def __call__(self, place: JournalPlace) -> int:
        self.attempts += 1
        if self.errors:
            raise self.errors.pop(0)
        return 42


def kept(lab, ledger, name="desk", **options):
    return KeptPlace(name, open_place=lab.open, ledger=ledger, **options)


def events(ledger, place="desk"):
    return [(line.event, line.error) for line in ledger.events(place)]


def test_a_fault_is_answered_by_a_reset_and_the_whole_work_again(lab, ledger):
    work = Failing(SILENT)

    assert kept(lab, ledger).use("net", work) == 42

    assert lab.done_at("desk") == ["open", "reset"]
    assert events(ledger) == [("fault", "LinkTimeout"), ("reset", ""), ("recovered", "")]
    first = ledger.events("desk")[0]
    assert "no reply to hello within 2.0 s" in first.detail
    assert first.action == "reset, then attempt 2 of 3"
    assert ledger.failures_in_row("desk") == 0


def test_a_second_fault_is_answered_by_a_power_cycle(lab, ledger):
    assert kept(lab, ledger).use("net", Failing(SILENT, SILENT)) == 42

    assert lab.done_at("desk") == ["open", "reset", "power cycle"]


def test_a_place_without_a_switch_is_opened_again_instead(lab, ledger):
    lab.can_power_cycle = False

    assert kept(lab, ledger).use("net", Failing(SILENT, SILENT)) == 42

    assert lab.done_at("desk") == ["open", "reset", "close", "open"]


def test_a_reset_that_fails_is_followed_by_a_power_cycle_at_once(lab, ledger):
    lab.broken["reset"] = ProbeGone("desk", "pyocd", "no probe")

    assert kept(lab, ledger).use("net", Failing(SILENT)) == 42

    assert lab.done_at("desk") == ["open", "reset", "power cycle"]
    assert ("reset", "ProbeGone") in events(ledger)


def test_a_port_that_does_not_come_back_is_waited_for_and_then_opened_anew(
    lab, ledger, monkeypatch
):
    monkeypatch.setattr("hil.recovery.RETURN_S", 0.05)
    monkeypatch.setattr(JournalPlace, "port", "/dev/no-such-port")

    assert kept(lab, ledger).use("net", Failing(SILENT)) == 42

    assert lab.done_at("desk") == ["open", "reset", "power cycle", "close", "open"]


@pytest.mark.parametrize(
    ("error", "steps"),
    [
        (LinkError("/dev/ttyX", "vanished"), [Step.RESET, Step.POWER_CYCLE]),
        (WireError("CRC", "m-rig"), [Step.RESET, Step.POWER_CYCLE]),
        (WireError("refused", "e-[rig run: crc]", code="crc"), [Step.RESET, Step.POWER_CYCLE]),
        (TargetFault("desk", "HardFault"), [Step.RESET]),
        (FirmwareMismatch("build", "a", "b"), [Step.RESET, Step.POWER_CYCLE]),
        (FlashError("desk", "pyocd", "no"), [Step.RESET, Step.POWER_CYCLE]),
        (ClockMismatch("10 % slow"), [Step.POWER_CYCLE]),
        (SamplesLost("ppk2", "3 of 900"), [Step.REOPEN, Step.POWER_CYCLE]),
        (TriggerError("ppk2", "no edge"), [Step.POWER_CYCLE]),
    ],
)
def test_faults_of_a_place_are_bounded_attempts(lab, ledger, error, steps):
    work = Failing(*[error] * 10)

    assert list(treatment_of(error).steps) == steps
    with pytest.raises(type(error)):
        kept(lab, ledger).use("net", work)
    assert work.attempts == len(steps) + 1
    assert lab.done_at("desk")[-1] == "close"
    assert ledger.failures_in_row("desk") == len(steps) + 1


@pytest.mark.parametrize(
    "error",
    [
        OutputMismatch("out", 1, 2, 3, 4, 5, 6),
        DoesNotFit("firmware", "nrf52840_dk", "RAM", 2, 1),
        UsageError("no"),
        WireError("refused", "e-[rig layers: room: no]", code="room"),
        PlaceBusy("desk", "pid 7"),
    ],
)
def test_what_the_same_again_cannot_mend_is_not_tried_again_nor_held_against_the_place(
    lab, ledger, error
):
    work = Failing(error)

    with pytest.raises(type(error)):
        kept(lab, ledger).use("net", work)

    assert work.attempts == 1
    assert ledger.failures_in_row("desk") == 0
    assert lab.done_at("desk") == ["open"]


@pytest.mark.parametrize(
    "error",
    [
        WrongBoard("board", "nrf52840_dk", "nucleo_l4r5zi"),
        ChipLocked("desk", "pyocd", "APPROTECT", "everything"),
        PowerError("desk", "no such hub"),
    ],
)
def test_what_a_person_has_to_mend_is_a_quarantine_at_once(lab, ledger, error):
    work = Failing(error)

    with pytest.raises(PlaceQuarantined, match=type(error).__name__) as caught:
        kept(lab, ledger).use("net", work)

    assert caught.value.__cause__ is error
    assert work.attempts == 1
    assert ledger.quarantined("desk") is not None


def test_failures_in_a_row_are_a_quarantine_whichever_job_and_process_met_them(lab, ledger):
    fault = TargetFault("desk", "HardFault")
    with pytest.raises(TargetFault):
        kept(lab, ledger).use("net", Failing(fault, fault))

    with pytest.raises(PlaceQuarantined, match="HardFault"):
        kept(lab, ledger).use("other", Failing(*[fault] * (QUARANTINE_AFTER - 2)))

    assert ledger.quarantined("desk") == "TargetFault: desk faulted: HardFault"


def test_a_success_starts_the_count_anew(lab, ledger):
    place = kept(lab, ledger)
    for _ in range(10):
        assert place.use("net", Failing(SILENT, SILENT)) == 42

    assert ledger.quarantined("desk") is None


def test_a_place_that_runs_a_known_firmware_is_not_to_blame(lab, ledger):
    proved = []
    place = kept(lab, ledger, prove=proved.append)

    for _ in range(10):
        with pytest.raises(LinkTimeout):
            place.use("net that hangs", Failing(*[SILENT] * 3))

    assert len(proved) == 10
    assert ledger.quarantined("desk") is None
    assert ledger.failures_in_row("desk") == 0
    assert "net that hangs is to blame" in ledger.events("desk")[-1].detail


def test_a_place_that_does_not_run_a_known_firmware_either_is_quarantined(lab, ledger):
    def prove(place):
        raise SILENT

    with pytest.raises(PlaceQuarantined, match="no reply") as caught:
        kept(lab, ledger, prove=prove).use("net", Failing(*[SILENT] * 3))

    assert caught.value.__cause__ is SILENT
    assert [event for event, _ in events(ledger)] == [
        *["fault", "reset", "fault", "power cycle", "fault"],
        *["proof", "quarantine"],
    ]


def test_an_anonymous_virtual_board_is_never_quarantined(lab, ledger):
    name = "virtual:nrf52840_dk"
    for error in (SILENT, WrongBoard("board", "a", "b")):
        for _ in range(3):
            with pytest.raises(type(error)):
                kept(lab, ledger, name).use("net", Failing(*[error] * 3))

    assert ledger.quarantines() == {}


def test_a_place_that_cannot_be_opened_is_a_fault_like_any_other(lab, ledger):
    lab.broken["open"] = LinkError("usb:123", "not plugged in")
    work = Failing()

    with pytest.raises(LinkError, match="not plugged in"):
        kept(lab, ledger).use("net", work)

    assert work.attempts == 0
    assert ledger.failures_in_row("desk") == 3


def test_nothing_is_tried_again_when_nobody_waits_for_it(lab, ledger):
    work = Failing(SILENT)

    with pytest.raises(LinkTimeout):
        kept(lab, ledger).use("net", work, is_over=lambda: True)

    assert work.attempts == 1
    assert ledger.failures_in_row("desk") == 0


def test_a_mistake_of_ours_is_raised_as_it_is_and_the_place_closed(lab, ledger):
    with pytest.raises(ZeroDivisionError):
        kept(lab, ledger).use("net", lambda place: 1 // 0)

    assert lab.done_at("desk") == ["open", "close"]


def test_every_type_of_error_has_a_treatment():
    kinds = [
        kind
        for _, kind in inspect.getmembers(hil.errors, inspect.isclass)
        if issubclass(kind, HilError)
    ]
    never = {
        *("BoardFileError", "BoardNotFound", "BuildError", "DoesNotFit", "LedgerError"),
        *("LimitsOutOfReach", "OracleError", "PlaceBusy", "PlaceQuarantined", "StoreError"),
        *("UsageError", "HilError", "OutputMismatch", "WrongKernel"),
    }

    for kind in kinds:
        error = kind.__new__(kind)
        error.code = ""
        treatment = treatment_of(error)
        assert treatment.is_of_place == (kind.__name__ not in never), kind
    assert not treatment_of(CodegenError("x")).is_of_place
