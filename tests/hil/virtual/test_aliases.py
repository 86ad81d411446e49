"""Code in memory that shows at two addresses."""

from __future__ import annotations

import pytest

from hil.board import get_board
from hil.virtual.program import run_program


@pytest.mark.parametrize(
    ("board_id", "own", "alias"),
    [
        ("nrf52840_dk", 0x2000_8000, 0x0080_8000),
        ("nucleo_l4r5zi", 0x2003_0800, 0x1000_0800),
        ("stm32f746g_disco", 0x2001_0000, 0x2001_0000),
    ],
)
@pytest.mark.parametrize("runs_at", ["own", "alias"])
def test_rewritten_code_runs_as_it_is_now(
    assemble, board_id: str, own: int, alias: int, runs_at: str
) -> None:
    """Ten times `movs r0, #n; bx lr` is written and called: the sum of what the calls return."""
    text = f"""start: ldr r4, =0x{own:08x}
        ldr r5, =0x{own if runs_at == "own" else alias:08x} + 1
        movs r6, #10
        movs r7, #0
        again: orr r1, r6, #0x2000
        strh r1, [r4]
        movw r1, #0x4770
        strh r1, [r4, #2]
        dsb
        isb
        blx r5
        adds r7, r0
        subs r6, #1
        bne again
        mov r0, r7
        EXIT
        .ltorg
        """
    board = get_board(board_id)
    elf = assemble(board, text)

    assert run_program(board, elf.read_bytes()).exit_code == 55
