"""Programs that erase and write the flash themselves."""

from __future__ import annotations

import pytest

from hil.board import get_board
from hil.errors import TargetFault
from hil.virtual.program import run_program

NRF = get_board("nrf52840_dk")
DISCO = get_board("stm32f746g_disco")
NUCLEO = get_board("nucleo_l4r5zi")

# r4: NVMC. The page at 0x80000 is erased, then written.
NRF_WRITE = """start: ldr r4, =0x4001e000
    ldr r5, =0x80000
    movs r0, #2
    str r0, [r4, #0x504]
    str r5, [r4, #0x508]
    1: ldr r0, [r4, #0x400]
    cmp r0, #0
    beq 1b
    movs r0, #1
    str r0, [r4, #0x504]
"""
# r4: FLASH. Unlocked, sector 5 (0x08040000) erased, then PG with 32 bits.
DISCO_WRITE = """start: ldr r4, =0x40023c00
    ldr r5, =0x08040000
    ldr r0, =0x45670123
    str r0, [r4, #4]
    ldr r0, =0xcdef89ab
    str r0, [r4, #4]
    ldr r0, =0x1022a
    str r0, [r4, #0x10]
    1: ldr r0, [r4, #0xc]
    tst r0, #1 << 16
    bne 1b
    ldr r0, =0x201
    str r0, [r4, #0x10]
"""
# r4: FLASH. Unlocked, page 3 of bank 2 (0x08103000) erased, then PG.
NUCLEO_ERASE = """ldr r0, =0x1081a
    str r0, [r4, #0x14]
    1: ldr r0, [r4, #0x10]
    tst r0, #1 << 16
    bne 1b
    movs r0, #1
    str r0, [r4, #0x14]
"""
NUCLEO_WRITE = f"""start: ldr r4, =0x40022000
    ldr r5, =0x08103000
    ldr r0, =0x45670123
    str r0, [r4, #8]
    ldr r0, =0xcdef89ab
    str r0, [r4, #8]
    {NUCLEO_ERASE}
"""
NUCLEO_WORDS = "ldr r0, =0x12345678\nstr r0, [r5]\nldr r1, =0x9abcdef0\nstr r1, [r5, #4]\n"
CASES = [(NRF, NRF_WRITE, 0x400), (DISCO, DISCO_WRITE, 0xC)]


@pytest.mark.parametrize(("board", "begin", "busy"), CASES)
def test_a_write_after_an_erase_is_read_back(board, begin, busy, assemble):
    write = f"ldr r0, =0x12345678\nstr r0, [r5, #4]\nldr r1, [r4, #{busy}]\n"
    text = f"{begin}{write}ldr r0, [r5, #4]\nEXIT\n"

    assert run_program(board, assemble(board, text).read_bytes()).exit_code == 0x12345678


@pytest.mark.parametrize(("board", "begin", "busy"), CASES)
def test_erased_flash_reads_as_ones(board, begin, busy, assemble):
    text = f"{begin}ldr r0, [r5, #8]\nEXIT\n"

    assert run_program(board, assemble(board, text).read_bytes()).exit_code == -1


@pytest.mark.parametrize(("board", "begin", "busy"), CASES)
def test_a_second_write_only_clears_bits(board, begin, busy, assemble):
    text = (
        f"{begin}ldr r0, =0x0ff0\nstr r0, [r5]\n"
        f"ldr r1, [r4, #{busy}]\nldr r0, =0xff00\nstr r0, [r5]\n"
        f"ldr r1, [r4, #{busy}]\nldr r0, [r5]\nEXIT\n"
    )

    assert run_program(board, assemble(board, text).read_bytes()).exit_code == 0x0F00


def test_the_l4_writes_double_words_and_shows_them_at_0_too(assemble):
    shown = (
        "ldr r1, [r4, #0x10]\nldr r5, =0x00103000\nldr r0, [r5]\nldr r1, [r5, #4]\nadds r0, r1\n"
    )
    text = f"{NUCLEO_WRITE}{NUCLEO_WORDS}{shown}EXIT\n"

    code = run_program(NUCLEO, assemble(NUCLEO, text).read_bytes()).exit_code

    assert code & 0xFFFF_FFFF == 0x12345678 + 0x9ABCDEF0


def test_the_l4_erases_a_page_of_one_bank(assemble):
    """A double word in page 3 of either bank; then page 3 of bank 2 is erased."""
    other = NUCLEO_WORDS.replace("0x12345678", "77")
    bank_1 = NUCLEO_ERASE.replace("0x1081a", "0x1001a")
    text = f"{NUCLEO_WRITE}{NUCLEO_WORDS}ldr r5, =0x08003000\n{bank_1}{other}{NUCLEO_ERASE}"
    text += "ldr r0, [r5]\nldr r5, =0x08103000\nldr r1, [r5]\nadds r0, r1\nEXIT\n"

    assert run_program(NUCLEO, assemble(NUCLEO, text).read_bytes()).exit_code == 77 - 1


def test_the_l4_writes_no_double_word_twice(assemble):
    """PROGERR, and the words stay as they were."""
    again = "movs r0, #0x70\nstr r0, [r5]\nstr r0, [r5, #4]\n"
    text = f"{NUCLEO_WRITE}{NUCLEO_WORDS}{again}ldr r6, [r4, #0x10]\n"
    text += "ldr r0, [r5]\nldr r1, [r5, #4]\nadds r0, r1\neors r0, r6\nEXIT\n"

    code = run_program(NUCLEO, assemble(NUCLEO, text).read_bytes()).exit_code

    assert code & 0xFFFF_FFFF == 0x12345678 + 0x9ABCDEF0 ^ 1 << 3


def test_what_the_axi_view_was_written_shows_in_the_itcm_view(assemble):
    write = "ldr r0, =77\nstr r0, [r5]\nldr r1, [r4, #0xc]\n"
    text = f"{DISCO_WRITE}{write}ldr r5, =0x00240000\nldr r0, [r5]\nEXIT\n"

    assert run_program(DISCO, assemble(DISCO, text).read_bytes()).exit_code == 77


def test_code_in_rewritten_flash_runs_as_it_is_now(assemble):
    """A function that returns 3 is written, called, erased, written to return 4, called."""
    text = f"""{NRF_WRITE}
    ldr r0, =0x47702003
    str r0, [r5]
    ldr r1, [r4, #0x400]
    adds r6, r5, #1
    blx r6
    mov r7, r0
    movs r0, #2
    str r0, [r4, #0x504]
    str r5, [r4, #0x508]
    movs r0, #1
    str r0, [r4, #0x504]
    ldr r0, =0x47702004
    str r0, [r5]
    ldr r1, [r4, #0x400]
    blx r6
    lsls r7, r7, #4
    adds r0, r7
    EXIT
    """

    assert run_program(NRF, assemble(NRF, text).read_bytes()).exit_code == 0x34


@pytest.mark.parametrize("view", [0x0806_1000, 0x0026_1000])
def test_code_far_into_an_erased_sector_runs_as_it_is_now(view, assemble):
    """The same on the F746, 33 pages into a sector of 256 KiB, through both views of the flash."""
    erase = "ldr r0, =0x1022a\nstr r0, [r4, #0x10]\nldr r0, =0x201\nstr r0, [r4, #0x10]\n"
    write = "ldr r5, =0x08061000\nldr r0, ={}\nstr r0, [r5]\nldr r1, [r4, #0xc]\n"
    text = f"""{DISCO_WRITE}{write.format("0x47702003")}ldr r6, ={view + 1:#x}\nblx r6\nmov r7, r0
    {erase}{write.format("0x47702004")}blx r6\nlsls r7, r7, #4\nadds r0, r7\nEXIT\n"""

    assert run_program(DISCO, assemble(DISCO, text).read_bytes()).exit_code == 0x34


@pytest.mark.parametrize(
    ("board", "text", "reason"),
    [
        (
            NRF,
            "start: ldr r5, =0x80000\nstr r5, [r5]\n",
            "flash is written while NVMC.CONFIG does not enable it",
        ),
        (NRF, f"{NRF_WRITE}strb r0, [r5]\n", "flash can only be written in whole aligned words"),
        (
            DISCO,
            "start: ldr r5, =0x08040000\nstr r5, [r5]\n",
            "flash is written while FLASH_CR is locked or PG is not set",
        ),
        (
            DISCO,
            f"{DISCO_WRITE}strb r0, [r5]\n",
            "flash is written 1 bytes wide while PSIZE says 4",
        ),
        (
            NUCLEO,
            "start: ldr r5, =0x08103000\nstr r5, [r5]\n",
            "flash is written while FLASH_CR is locked or PG is not set",
        ),
        (NUCLEO, f"{NUCLEO_WRITE}strb r0, [r5]\n", "flash is written 1 bytes wide"),
        (
            NUCLEO,
            f"{NUCLEO_WRITE}str r0, [r5, #4]\n",
            "flash is written with the upper word of a double word before the lower",
        ),
    ],
)
def test_a_write_that_the_controller_does_not_allow_is_a_fault(board, text, reason, assemble):
    with pytest.raises(TargetFault) as caught:
        run_program(board, assemble(board, text).read_bytes())

    assert reason in str(caught.value)


@pytest.mark.parametrize(("board", "begin"), [(DISCO, DISCO_WRITE), (NUCLEO, NUCLEO_WRITE)])
def test_a_wrong_key_keeps_the_flash_locked(board, begin, assemble):
    text = begin.replace("0xcdef89ab", "0xcdef89aa") + "str r0, [r5]\n"

    with pytest.raises(TargetFault, match=r"FLASH_CR is locked"):
        run_program(board, assemble(board, text).read_bytes())
