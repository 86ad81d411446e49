"""What every link must do: the serial port, here on a pty, and the scripted one of the tests."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest
from links import READY, FakeLink, PtyBoard, Script, Signer, Spoil, line, unspoilt

from hil import wire
from hil.errors import LinkError, LinkTimeout, WireError
from hil.link import Link, SerialLink
from hil.wire import Wire

RUN = line("m-rig-run i=0 cycles=900")


def fresh(command: bytes) -> bytes:
    """The answer of a board that has just started."""
    signer = Signer()
    signer.hear(command)
    return signer.sign(RUN + READY)


@contextlib.contextmanager
def fake(script: Script, spoil: Spoil = unspoilt) -> Iterator[tuple[Link, Callable[[], None]]]:
    link = FakeLink(script, spoil=spoil)
    yield link, link.close


@contextlib.contextmanager
def serial(script: Script, spoil: Spoil = unspoilt) -> Iterator[tuple[Link, Callable[[], None]]]:
    board = PtyBoard(script, spoil)
    with SerialLink(board.port, 115_200) as link:
        yield link, board.vanish
    with contextlib.suppress(OSError):
        board.vanish()


LINKS = pytest.mark.parametrize("connect", [fake, serial])


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch):
    monkeypatch.setattr(wire, "REPLY_S", 0.3)


@LINKS
def test_an_answer_in_one_piece_arrives(connect):
    with connect(lambda command: [RUN + READY]) as (link, _):
        assert Wire(link, "desk").run(1, timeout_s=2) == [900]


@LINKS
def test_an_answer_in_single_bytes_arrives(connect):
    with connect(lambda command: [bytes([b]) for b in fresh(command)]) as (link, _):
        assert Wire(link, "desk").run(1, timeout_s=2) == [900]


@LINKS
def test_garbage_before_an_answer_is_skipped(connect):
    garbage = bytes(range(256)).replace(b"\n", b"") + b"\r\n"

    with connect(lambda command: [garbage, RUN + READY]) as (link, _):
        assert Wire(link, "desk").run(1, timeout_s=2) == [900]


@LINKS
def test_a_wrong_crc_is_refused(connect):
    with (
        connect(lambda command: [RUN, READY], lambda c: c.replace(b"900", b"901")) as (link, _),
        pytest.raises(WireError, match="corrupt"),
    ):
        Wire(link, "desk").run(1, timeout_s=2)


@LINKS
def test_silence_is_a_timeout_that_shows_the_last_bytes(connect):
    with connect(lambda command: [b"m-rig-r"]) as (link, _), pytest.raises(LinkTimeout) as caught:
        Wire(link, "desk").run(1, timeout_s=0.2)

    assert caught.value.last_bytes == b"m-rig-r"
    assert link.port in str(caught.value)


@LINKS
def test_a_read_without_bytes_ends_in_time(connect):
    with connect(lambda command: []) as (link, _):
        started = time.monotonic()

        assert link.read(0.05) == b""
        assert time.monotonic() - started < 1


@LINKS
def test_what_was_discarded_is_not_read(connect):
    with connect(lambda command: [b"old"]) as (link, _):
        link.write(b"x%")
        deadline = time.monotonic() + 2
        while not link.read(0.01) and time.monotonic() < deadline:
            pass  # it has arrived: the next answer is the one to drop
        link.write(b"x%")
        time.sleep(0.05)
        link.discard()

        assert link.read(0.05) == b""


@LINKS
def test_a_device_that_vanishes_is_a_link_error(connect):
    with connect(lambda command: []) as (link, vanish):
        vanish()

        with pytest.raises(LinkError) as caught:
            link.write(b"x%")
            link.read(0.2)
        assert not isinstance(caught.value, LinkTimeout)


@LINKS
def test_closing_twice_is_fine(connect):
    with connect(lambda command: []) as (link, _):
        link.close()
        link.close()

        with pytest.raises(LinkError):
            link.read(0.05)


def test_a_serial_port_can_be_opened_again():
    board = PtyBoard(lambda command: [fresh(command)])
    for _ in range(2):
        with SerialLink(board.port, 115_200) as link:
            assert Wire(link, "desk").run(1, timeout_s=2) == [900]
    board.vanish()


def test_a_serial_port_is_opened_by_one_at_a_time():
    board = PtyBoard(lambda command: [])
    with (
        SerialLink(board.port, 115_200),
        pytest.raises(LinkError, match="used by another program"),
    ):
        SerialLink(board.port, 115_200)
    board.vanish()


@pytest.mark.parametrize(
    ("port", "reason"), [("/dev/no_such_port", "does not exist"), ("/", "cannot be opened")]
)
def test_a_port_that_cannot_be_opened_says_why(port, reason):
    with pytest.raises(LinkError, match=reason):
        SerialLink(port, 115_200)


def test_a_file_is_no_serial_port(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(LinkError, match="cannot be opened"):
        SerialLink(str(tmp_path / "file"), 115_200)
