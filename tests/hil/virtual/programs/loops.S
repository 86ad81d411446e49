// loops.S: loops of every shape; bodies longer than a translation block and over the ends of 4 KiB pages.
#include "common.inc"
    push {r4-r8, lr}
    movs r0, #1
    movs r1, #200               // nested
1:  movs r2, #50
2:  MIX r2
    subs r2, #1
    bne 2b
    subs r1, #1
    bne 1b

    movw r1, #60000             // two instructions, many rounds
3:  subs r1, #1
    bne 3b

    movs r1, #100               // CBZ, CBNZ, a branch that is mostly not taken
4:  cbz r1, 6f
    tst r1, #7
    bne 5f
    MIX r1
5:  subs r1, #1
    cbnz r1, 5f
    adds r0, #3
5:  b 4b
6:
    mov.w r1, #300              // 2,000 16-bit instructions without a branch
7:  .rept 1000
    adds r0, r0, r1
    eors r0, r1
    .endr
    subs r1, #1
    beq 8f
    b.w 7b
8:
    nop                         // then 32-bit ones, so that one lies on each page end
    mov.w r1, #300
9:  .rept 2100
    add.w r0, r0, r1, ror #3
    .endr
    nop
    .rept 2100
    eor.w r0, r0, r1, ror #5
    .endr
    subs r1, #1
    beq 10f
    b.w 9b
10:
    pop {r4-r8, pc}
