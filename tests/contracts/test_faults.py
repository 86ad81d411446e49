"""What every fault of a serial line must come to: the true record, or a typed error.

A scripted board is measured over a link that spoils some bytes and lines in either direction. Time
is the link's: it passes when somebody waits for bytes that do not come.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from links import READY, Signer

from boards import FakePlace, fake_firmware, fake_manifest, fake_output
from hil import link as link_module
from hil import session, wire
from hil.errors import HilError, LinkError
from hil.inputs import random_inputs
from hil.record import Record
from hil.session import Procedure, measure

PROCEDURE = Procedure(inputs=2, warmup=1, repeats=3, layers=True)
BOOT = b"m-timestamp-mode-performance\r\nm-lap-us-9\r\nm-init-done\r\n" + READY


class Spoilt:
    """A place, and the link to it; line number n of both directions suffers `faults[n]`.

    A fault is (what, where in the line, byte). Lines may also be changed so that they carry the
    CRC that a board without a session's CRC would give them.
    """

    port = "/dev/spoilt"

    def __init__(self, faults: dict[int, tuple[str, int, int]]) -> None:
        self.place = FakePlace()
        self.faults = faults
        self.lines = 0
        self.waited_s = 0.0
        self._signer = Signer()
        self._to_host: list[bytes] = []
        self._command = b""
        self._held: list[bytes] = []
        self._sent: list[bytes] = []  # lines of before, to be said again

    # -- the place: that of the script, but for the way to it

    def __getattr__(self, name: str) -> object:
        return getattr(self.place, name)

    def flash(self, elf: Path) -> None:
        for line in BOOT.splitlines(keepends=True):
            self._say(line)

    # -- the link

    def __enter__(self) -> Spoilt:
        return self

    def __exit__(self, *_: object) -> None:
        self.place.close()

    def discard(self) -> None:
        self._to_host.clear()

    def close(self) -> None:
        pass

    def read(self, timeout_s: float) -> bytes:
        if self._to_host:
            return self._to_host.pop(0)
        self.waited_s += timeout_s
        return b""

    def write(self, data: bytes) -> None:
        *commands, self._command = (self._command + b"".join(self._through(data))).split(b"%")
        for command in commands:
            self._hear(command)

    def _hear(self, command: bytes) -> None:
        if not re.fullmatch(rb"rig [ -~]+ [0-9a-f]{8}", command) or (
            wire.crc32(command[:-9]) != int(command[-8:], 16)
        ):
            self._say(b"e-[rig unknown: crc: the last token should be the CRC-32]\r\n")
            self._say(READY)
            return
        self._signer.hear(command)
        try:
            answer = self.place._reply(command)
        except (AttributeError, TypeError, ValueError):
            answer = [b"e-[rig unknown: args: wrong]\r\n", READY]
        for line in answer:
            self._say(self._signer.sign(line))

    def _say(self, line: bytes) -> None:
        self._sent.append(line)
        self._to_host += self._through(line)

    def _through(self, line: bytes) -> list[bytes]:
        what, position, value = self.faults.get(self.lines, ("", 0, 0))
        self.lines += 1
        at = position % len(line)
        arrived = [line]
        if what == "gone":
            raise LinkError(self.port, "the device is gone")
        if what == "replace":
            arrived = [line[:at] + bytes([value]) + line[at + 1 :]]
        elif what == "lose":
            arrived = [line[:at] + line[at + 1 + value % 8 :]]
        elif what == "double":
            arrived = [line[: at + 1] + line[at:]]
        elif what == "insert":
            arrived = [line[:at] + bytes([value]) + line[at:]]
        elif what == "lose line":
            arrived = []
        elif what == "double line":
            arrived = [line, line]
        elif what == "late":
            self._held.append(line)
            return []
        elif what == "again" and self._sent:
            arrived = [line, self._sent[position % len(self._sent)]]
        elif what == "instead" and self._sent:
            arrived = [self._sent[position % len(self._sent)]]
        elif what == "digit":  # as if the line's own CRC had been right for it
            changed = re.sub(rb"\d(?=\d* [0-9a-f]{8}\r\n)", b"%d" % (value % 10), line, count=1)
            arrived = [Signer().sign(re.sub(rb"[0-9a-f]{8}\r\n", b"########\r\n", changed))]
        if self._held and what != "late":
            arrived += self._held
            self._held = []
        return [piece for piece in arrived if piece]


def measured(spoilt: Spoilt) -> Record:
    """In the link's time, without a port."""
    manifest = fake_manifest()
    inputs = [random_inputs(manifest.inputs, seed) for seed in PROCEDURE.seeds]
    expected = [fake_output(b"".join(a.tobytes() for a in arrays)) for arrays in inputs]
    clock = SimpleNamespace(monotonic=lambda: spoilt.waited_s)
    with pytest.MonkeyPatch.context() as patch, contextlib.closing(spoilt):
        patch.setattr(session, "SerialLink", lambda port, baud: spoilt)
        patch.setattr(wire, "time", clock)
        patch.setattr(link_module, "time", clock)
        record = measure(spoilt, fake_firmware(Path()), manifest, expected, PROCEDURE)
    return dataclasses.replace(record, started_at="", git=None)


KINDS = ["replace", "lose", "double", "insert", "lose line", "double line", "late", "again"]
KINDS += ["instead", "digit", "gone"]
FAULTS = st.dictionaries(
    st.integers(0, 99),  # percent of the session's lines
    st.tuples(
        st.sampled_from(KINDS),
        st.integers(0, 700),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def undisturbed() -> tuple[Record, int]:
    """The record of a good line, and how many lines it takes, both ways together."""
    spoilt = Spoilt({})
    return measured(spoilt), spoilt.lines


@given(FAULTS)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_line_does_there_is_the_true_record_or_a_typed_error(undisturbed, faults):
    true_record, lines = undisturbed

    with contextlib.suppress(HilError):
        spoilt = Spoilt({percent * lines // 100: fault for percent, fault in faults.items()})
        assert measured(spoilt) == true_record


@pytest.mark.parametrize("percent", range(0, 100, 5))
@pytest.mark.parametrize("what", ["lose line", "digit", "instead", "late"])
def test_a_line_that_is_lost_or_another_is_never_overlooked(undisturbed, percent, what):
    """But for those that say nothing: a boot message that comes late."""
    true_record, lines = undisturbed
    try:
        record = measured(Spoilt({percent * lines // 100: (what, 3, 7)}))
    except HilError:
        return

    assert record == true_record
