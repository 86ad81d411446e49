from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from links import READY, FakeLink, line

from hil import wire
from hil.errors import HilError, LinkTimeout, TargetFault, WireError

HELLO = (
    "m-rig-hello proto=1 board=nrf52840_dk engine=tiny build=0123456789abcdef "
    f"model={'ab' * 32} clock_hz=64000000 in_bytes=64 out_bytes=10 layers=2 arena_bytes=512 "
    "store_bytes=1000"
)


def replies(*lines: bytes):
    """A link that gives these lines and a ready line to any command."""
    return FakeLink(lambda command: [*lines, READY])


def silent_after(*chunks: bytes):
    return FakeLink(lambda command: chunks)


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch):
    monkeypatch.setattr(wire, "REPLY_S", 0.02)


def test_the_crc_is_that_of_the_published_check_string():
    assert wire.crc16(b"123456789") == 0x29B1


def test_a_command_carries_its_crc_and_no_line_end():
    assert wire.encode("seed", 7) == b"rig seed 7 %04x%%" % wire.crc16(b"rig seed 7")


def test_hello_gives_what_the_firmware_says_of_itself():
    hello = wire.Wire(replies(line(HELLO)), "desk").hello()

    assert (hello.board, hello.engine, hello.clock_hz) == ("nrf52840_dk", "tiny", 64_000_000)
    assert (hello.in_bytes, hello.out_bytes, hello.store_bytes) == (64, 10, 1000)


def test_another_protocol_version_is_refused():
    link = replies(line(HELLO.replace("proto=1", "proto=9")))

    with pytest.raises(WireError, match="protocol version 9"):
        wire.Wire(link, "desk").hello()


def test_a_key_that_is_missing_is_named():
    link = replies(line(HELLO.replace(" store_bytes=1000", "")))

    with pytest.raises(WireError, match="'store_bytes'"):
        wire.Wire(link, "desk").hello()


def test_a_value_that_is_no_number_is_refused():
    link = replies(line(HELLO.replace("layers=2", "layers=two")))

    with pytest.raises(WireError, match="'layers'"):
        wire.Wire(link, "desk").hello()


def test_run_gives_the_cycles_of_every_repeat():
    link = replies(line("m-rig-run i=0 cycles=900"), line(f"m-rig-run i=1 cycles={2**40}"))

    assert wire.Wire(link, "desk").run(2, timeout_s=0.02) == [900, 2**40]


def test_a_lost_line_is_an_error():
    link = replies(line("m-rig-run i=0 cycles=900"))

    with pytest.raises(WireError, match="1 of 2"):
        wire.Wire(link, "desk").run(2, timeout_s=0.02)


def test_lines_out_of_turn_are_an_error():
    link = replies(line("m-rig-run i=1 cycles=900"), line("m-rig-run i=0 cycles=900"))

    with pytest.raises(WireError, match="turn"):
        wire.Wire(link, "desk").run(2, timeout_s=0.02)


def test_a_flipped_bit_is_an_error():
    good = line("m-rig-run i=0 cycles=900")

    with pytest.raises(WireError, match="corrupt"):
        wire.Wire(replies(good.replace(b"900", b"901")), "desk").run(1, timeout_s=0.02)


def test_inputs_go_out_in_chunks_and_outputs_come_back_in_chunks():
    store = bytearray(600)

    def script(command):
        _, verb, *arguments, _crc = command.decode().split(" ")
        offset = int(arguments[0])
        if verb == "in":
            data = bytes.fromhex(arguments[1])
            store[offset : offset + len(data)] = data
            return [line(f"m-rig-in n={len(data)}"), READY]
        chunk = store[offset : offset + int(arguments[1])].hex()
        return [line(f"m-rig-out offset={offset} hex={chunk}"), READY]

    link = FakeLink(script)
    data = bytes(i * 7 % 256 for i in range(600))
    client = wire.Wire(link, "desk")

    client.feed(data)

    assert client.outputs(600) == data
    assert max(map(len, link.written)) <= wire.COMMAND_BYTES


def test_output_chunks_of_another_length_are_an_error():
    with pytest.raises(WireError, match="4 output bytes"):
        wire.Wire(replies(line("m-rig-out offset=0 hex=0102")), "desk").outputs(4)


def test_the_reset_waits_for_the_firmware_to_start():
    link = FakeLink(
        lambda command: [line("m-rig-reset"), READY, b"m-lap-us-12\r\nm-init-", b"done\r\n", READY]
    )

    wire.Wire(link, "desk").reset(0.02)


def test_a_refusal_says_what_the_board_said():
    link = replies(b"e-[rig run: state: fill the input first]\r\n")

    with pytest.raises(WireError, match=r"refused \(state\).*fill the input first"):
        wire.Wire(link, "desk").run(1, timeout_s=0.02)


def test_a_fault_report_is_a_target_fault():
    link = silent_after(b"e-[fault hard pc=0x00000100 lr=0x0 cfsr=0x00008200 addr=0x50000000]\r\n")

    with pytest.raises(TargetFault, match="desk faulted: hard pc=0x00000100"):
        wire.Wire(link, "desk").run(1, timeout_s=0.02)


def test_a_restart_in_the_middle_of_an_answer_is_an_error():
    link = silent_after(b"m-init-done\r\n", READY)

    with pytest.raises(WireError, match="restarted"):
        wire.Wire(link, "desk").run(1, timeout_s=0.02)


def test_a_silent_board_times_out_with_the_last_bytes_seen():
    link = silent_after(b"m-rig-run i=0 cyc")

    with pytest.raises(LinkTimeout, match="cyc") as caught:
        wire.Wire(link, "desk").run(1, timeout_s=0.02)

    assert caught.value.last_bytes.endswith(b"m-rig-run i=0 cyc")


def test_noise_before_the_answer_is_skipped():
    link = silent_after(b"\xff\x00\r\nm-lap-us-3\r\n", READY, line("m-rig-run i=0 cycles=9"), READY)

    assert wire.Wire(link, "desk").run(1, timeout_s=0.02) == [9]


def test_noise_without_end_times_out():
    class Noise(FakeLink):
        def read(self, timeout_s):
            return b"\xaa" * 5000

    with pytest.raises(LinkTimeout):
        wire.Wire(Noise(lambda command: []), "desk").run(1, timeout_s=0.02)


@given(st.binary(max_size=300))
@example(b"m-rig-run i=0 cycles=1 0000")
@example(b"m-rig- 0000")
@example(b"m-rig-run x=1 x=1 ffff")
def test_no_bytes_crash_the_parser(data):
    wire.parse_line(data)


@given(st.binary(min_size=1, max_size=40), st.data())
def test_a_changed_line_is_never_taken_for_the_original_verb_and_values(noise, data):
    original = line("m-rig-run i=3 cycles=123456")[:-2]
    position = data.draw(st.integers(0, len(original) - 1))
    changed = original[:position] + noise + original[position + len(noise) :]

    parsed = wire.parse_line(changed)

    if changed != original and len(noise) <= 2:  # CRC-16 finds every burst of up to 16 bits
        assert not isinstance(parsed, wire.Data)


@given(st.lists(st.binary(max_size=60), max_size=8), st.booleans())
def test_arbitrary_answers_end_in_an_error_or_not_at_all_but_in_time(chunks, lines):
    ends = b"\r\n" if lines else b""
    link = FakeLink(lambda command: [*(chunk + ends for chunk in chunks), READY])
    client = wire.Wire(link, "desk")

    with pytest.raises(HilError):
        client.run(2, timeout_s=0.005)
