// entries.S: one straight piece of code entered at each of its halfwords; also in the middle of a 32-bit instruction, which is
// another instruction then.
#include "common.inc"
    push {r4-r7, lr}
    movs r0, #1
    movs r7, #50
1:  movs r4, #0
2:  ldr r5, =entry + 1
    add r5, r5, r4, lsl #1
    blx r5
    adds r4, #1
    cmp r4, #(leave - entry) / 2
    ble 2b
    subs r7, #1
    bne 1b
    pop {r4-r7, pc}
.ltorg
.balign 4
    nop                         // entry is not a multiple of 4
.thumb_func
entry:
    adds r0, #1
    .hword 0xf240, 0x3001       // movw r0, #0x301, or adds r0, #1
    adds r0, r0, r1
    adds r0, #2
    .hword 0xf2c1, 0x2235       // movt r2, #0x1235, or movs r2, #0x35
    add.w r0, r0, #1            // F100 0001, or movs r1, r0
    eors r0, r2
    adds r0, #3
leave:
    bx lr
