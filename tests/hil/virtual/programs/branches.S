// branches.S: branches whose target is computed: TBB, TBH, loads of the program counter, calls through registers.
#include "common.inc"
    push {r4-r7, lr}
    movs r0, #1
    movs r4, #200
1:  and r5, r4, #3
    tbb [pc, r5]
2:  .byte (3f - 2b) / 2, (4f - 2b) / 2, (5f - 2b) / 2, (6f - 2b) / 2
3:  adds r0, #1
4:  adds r0, #2
    b 7f
5:  MIX r4
6:  adds r0, #5
7:  tbh [pc, r5, lsl #1]
8:  .hword (11f - 8b) / 2, (9f - 8b) / 2, (10f - 8b) / 2, (9f - 8b) / 2
9:  MIX r5
10: eors r0, r4
11: ldr r6, =table
    ldr.w r7, [r6, r5, lsl #2]
    blx r7
    ldr.w r7, [r6, r5, lsl #2]
    adr r1, 12f + 1
    mov lr, r1
    bx r7
    nop
    .balign 4
12: adr r1, 13f + 1
    mov lr, r1
    ldr.w pc, [r6, r5, lsl #2]
    .balign 4
13: adr r1, 14f + 1
    mov lr, r1
    mov pc, r7                  // bit 0 does not matter here
    .balign 4
14: bl second
    subs r4, #1
    beq 15f
    b.w 1b
15: pop {r4-r7, pc}
.thumb_func
first:
    adds r0, #7
    bx lr
.thumb_func
second:
    push {lr}
    bl first
    ldr pc, [sp], #4
.thumb_func
third:
    mov r1, lr
    MIX r4
    bx r1
.ltorg
.balign 4
table: .word first, second, third, first
