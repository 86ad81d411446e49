from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from links import READY, FakeLink, Signer, line, unspoilt

from hil import wire
from hil.errors import HilError, LinkGarbled, LinkTimeout, ResetLoop, TargetFault, WireError

HELLO = (
    "m-rig-hello proto=2 board=nrf52840_dk engine=tiny build=0123456789abcdef "
    f"model={'ab' * 32} clock_hz=64000000 in_bytes=64 out_bytes=10 layers=2 arena_bytes=512 "
    "store_bytes=1000"
)

BOOT = [b"m-timestamp-mode-performance\r\n", b"m-lap-us-12\r\nm-init-done\r\n", READY]
RUN = line("m-rig-run i=0 cycles=900")


def replies(*lines: bytes, spoil=unspoilt):
    """A link that gives these lines and a ready line to any command."""
    return FakeLink(lambda command: [*lines, READY], spoil=spoil)


def silent_after(*chunks: bytes):
    return FakeLink(lambda command: chunks)


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch):
    monkeypatch.setattr(wire, "REPLY_S", 0.02)
    monkeypatch.setattr(wire, "RESTART_WATCH_S", 0.02)


def test_the_crc_is_that_of_the_published_check_string():
    assert wire.crc32(b"123456789") == 0xCBF43926
    assert wire.crc32(b"6789", wire.crc32(b"12345")) == 0xCBF43926


def test_a_command_carries_its_crc_and_no_line_end():
    assert wire.encode("seed", 7) == b"rig seed 7 %08x%%" % wire.crc32(b"rig seed 7")


def test_hello_gives_what_the_firmware_says_of_itself():
    hello = wire.Wire(replies(line(HELLO)), "desk").hello()

    assert (hello.board, hello.engine, hello.clock_hz) == ("nrf52840_dk", "tiny", 64_000_000)
    assert (hello.in_bytes, hello.out_bytes, hello.store_bytes) == (64, 10, 1000)


def test_another_protocol_version_is_refused():
    link = replies(line(HELLO.replace("proto=2", "proto=9")))

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
    link = replies(line("m-rig-run i=0 cycles=900"), spoil=lambda c: c.replace(b"=900", b"=901"))

    with pytest.raises(WireError, match="corrupt"):
        wire.Wire(link, "desk").run(1, timeout_s=0.02)


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


def in_session(*answer: bytes, spoil=unspoilt):
    """A wire whose board said hello and answers everything else so."""

    def script(command):
        return [line(HELLO), READY] if b"hello" in command else answer

    client = wire.Wire(FakeLink(script, spoil=spoil), "desk")
    client.hello()
    return client


def test_a_restart_in_the_middle_of_an_answer_is_an_error():
    with pytest.raises(WireError, match="restarted"):
        in_session(*BOOT).run(1, timeout_s=0.02)


@pytest.mark.parametrize("rows", [BOOT * 5, BOOT[:1] * 5])
def test_a_board_that_starts_again_and_again_is_a_reset_loop(rows):
    client = wire.Wire(FakeLink(lambda command: [], rows), "desk")
    with pytest.raises(ResetLoop, match="desk faulted: it has started 5 times in a row"):
        client.wait_boot(0.5)  # which a whole boot message ends
        client.hello()
    with pytest.raises(ResetLoop, match="has started 3 times while it answered 'run'"):
        in_session(*rows).run(1, timeout_s=0.02)


def test_two_starts_after_flashing_are_no_loop():
    link = FakeLink(lambda command: [*BOOT, line(HELLO), READY], BOOT)
    client = wire.Wire(link, "desk")

    client.wait_boot(0.5)

    assert client.hello().board == "nrf52840_dk"


def test_every_reset_that_was_asked_for_starts_a_session():
    def script(command):
        return [line("m-rig-reset"), READY, *BOOT] if b"reset" in command else [RUN, READY]

    class Restarting(FakeLink):
        def write(self, data):
            super().write(data)
            if b"reset" in data:
                self._signer.said = 0

    client = wire.Wire(Restarting(script), "desk")

    for _ in range(5):
        client.reset(0.5)
        assert client.run(1, timeout_s=0.02) == [900]


def test_a_fault_report_begins_a_line_of_its_own():
    with pytest.raises(TargetFault, match="hard pc=0x00000100"):
        in_session(RUN, b"\r\ne-[fault hard pc=0x00000100]\r\n").run(2, timeout_s=0.02)


@pytest.mark.parametrize("noise", [b"m-lap-us-3\r\n", b"\x00\xff\r\n"])
@pytest.mark.parametrize("position", [0, 1])
def test_in_a_session_every_line_has_its_turn(noise, position):
    answer = [RUN, READY]
    answer.insert(position, noise)

    with pytest.raises(WireError, match="no answer to 'run'"):
        in_session(*answer).run(1, timeout_s=0.02)


def test_an_answer_without_lines_is_an_error():
    with pytest.raises(WireError, match="no answer to 'run'"):
        in_session(READY).run(1, timeout_s=0.02)


def test_bytes_that_are_no_text_are_garbled():
    rows = [b"\xf8\x80\x00m", b"\xe6\x98"]

    with pytest.raises(LinkGarbled, match="are baud rate"):
        wire.Wire(FakeLink(lambda command: [], rows), "desk").wait_boot(0.02)


def test_nobody_waits_for_the_end_of_many_bytes_that_are_no_text():
    rows = [b"\xf8\x80\x00m" * 16]

    with pytest.raises(LinkGarbled):
        wire.Wire(FakeLink(lambda command: [], rows), "desk").wait_boot(1e9)


def test_a_little_noise_before_silence_is_still_silence():
    rows = [b"\xff\x00", *BOOT[:1] * 2]

    with pytest.raises(LinkTimeout) as caught:
        wire.Wire(FakeLink(lambda command: [], rows), "desk").wait_boot(0.02)
    assert not isinstance(caught.value, LinkGarbled)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda answers: [*answers[:-1], answers[-2]], id="an earlier answer again"),
        pytest.param(lambda answers: [answers[1], answers[0], *answers[2:]], id="swapped answers"),
        pytest.param(lambda answers: answers[1:] + answers[:1], id="an answer lost"),
    ],
)
def test_a_line_of_another_command_is_refused_whatever_its_crc(spoil):
    """Each command is the same, and every line was right in its place."""
    signer, commands, answers = Signer(), [wire.encode("hello", "00000000")], []
    commands += [wire.encode("run", 1)] * 3
    for number, command in enumerate(commands):
        signer.hear(command[:-1])
        answers.append(signer.sign(line(HELLO) if number == 0 else RUN))
    sent = iter(spoil(answers[1:]))

    client = wire.Wire(
        FakeLink(lambda c: [answers[0] if b"hello" in c else next(sent), READY]), "desk"
    )
    client.hello()

    with pytest.raises(WireError, match="corrupt"):
        for _ in range(3):
            client.run(1, timeout_s=0.02)


def test_the_same_words_in_another_session_have_other_crcs():
    answers = []
    for nonce in (1, 2):
        link = FakeLink(lambda c: [line(HELLO) if b"hello" in c else RUN, READY])
        client = wire.Wire(link, "desk", nonce=nonce)
        client.hello()
        client.run(1, timeout_s=0.02)
        answers.append(link.signed)

    assert not set(answers[0]) & set(answers[1])


def test_a_command_that_the_board_heard_differently_is_refused():
    """Its answer is right for what the board heard."""

    class Mishearing(FakeLink):
        def write(self, data):
            super().write(wire.encode("seed", 8) if b"seed 7" in data else data)

    client = wire.Wire(
        Mishearing(lambda c: [line(HELLO if b"hello" in c else "m-rig-seed crc=00000001"), READY]),
        "desk",
    )
    client.hello()

    with pytest.raises(WireError, match="corrupt"):
        client.seed(7)


def test_a_restart_that_nobody_saw_breaks_the_session():
    class Forgetful(FakeLink):
        def write(self, data):
            if b"run" in data:
                self._signer.said = 0  # as after a reset
            super().write(data)

    client = wire.Wire(Forgetful(lambda c: [line(HELLO) if b"hello" in c else RUN, READY]), "desk")
    client.hello()

    with pytest.raises(WireError, match="corrupt"):
        client.run(1, timeout_s=0.02)


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
    wire.parse_line(data, 0)


@given(st.binary(min_size=1, max_size=40), st.data())
def test_a_changed_line_is_never_taken_for_the_original_verb_and_values(noise, data):
    original = Signer().sign(line("m-rig-run i=3 cycles=123456"))[:-2]
    position = data.draw(st.integers(0, len(original) - 1))
    changed = original[:position] + noise + original[position + len(noise) :]

    parsed = wire.parse_line(changed, 0)

    if changed != original and len(noise) <= 4:  # CRC-32 finds every burst of up to 32 bits
        assert not isinstance(parsed, wire.Data)


@given(st.lists(st.binary(max_size=60), max_size=8), st.booleans())
def test_arbitrary_answers_end_in_an_error_or_not_at_all_but_in_time(chunks, lines):
    ends = b"\r\n" if lines else b""
    link = FakeLink(lambda command: [*(chunk + ends for chunk in chunks), READY])
    client = wire.Wire(link, "desk")

    with pytest.raises(HilError):
        client.run(2, timeout_s=0.005)
