// rewritten.S: code in RAM that is copied, patched and run, over and over: blocks of the same address and size with other bytes,
// with other lengths, and a patch further on in the running page.
#include "common.inc"
    push {r4-r11, lr}
    movs r0, #1
    ldr r4, =buffer
    ldr r9, =40
1:  ldr r5, =one
    bl copy_and_call
    ldr r5, =two
    bl copy_and_call
    ldr r5, =three
    bl copy_and_call
    subs r9, #1
    bne 1b

    ldr r5, =patcher            // lies in RAM and changes its own instruction behind an ISB
    bl copy
    movs r9, #40
2:  mov r1, r9
    adds r5, r4, #1
    blx r5
    subs r9, #1
    bne 2b

    ldr r4, =straddling         // a 32-bit instruction across a page end: first one half changes, then the other
    ldr r1, =0x3001f100         // add.w r0, r0, #imm * 0x1010101
    str.w r1, [r4]
    movw r1, #0x4770            // bx lr
    strh r1, [r4, #4]
    movs r9, #40
3:  orr r1, r9, #0x3000
    strh r1, [r4, #2]
    dsb
    isb
    adds r5, r4, #1
    blx r5
    tst r9, #1
    ite eq
    movweq r1, #0xf100          // adding
    movwne r1, #0xf1a0          // subtracting
    strh r1, [r4]
    dsb
    isb
    adds r5, r4, #1
    blx r5
    subs r9, #1
    bne 3b
    pop {r4-r11, pc}

copy_and_call:
    push {lr}
    bl copy
    movs r1, #7
    adds r5, r4, #1
    blx r5
    adds r5, r4, #1
    blx r5
    pop {pc}
copy:
    movs r6, #0
1:  ldr r7, [r5, r6]
    str r7, [r4, r6]
    adds r6, #4
    cmp r6, #64
    bne 1b
    dsb
    isb
    bx lr
.ltorg
.balign 4
one:                            // 10 bytes, 4 instructions, then the return
    adds r0, #1
    add.w r0, r0, r0, lsl #1
    eors r0, r1
    nop
    bx lr
.balign 4
two:                            // as long, 5 instructions, then the return
    adds r0, #1
    adds r0, r0, r0
    subs r0, r0, r1
    eors r0, r1
    nop
    bx lr
.balign 4
three:                          // shorter, with a loop
    movs r2, #9
1:  adds r0, r0, r2
    subs r2, #1
    bne 1b
    bx lr
.balign 4
patcher:                        // r1: what the patched instruction adds
    orr r2, r1, #0x3000         // adds r0, #imm8
    tst r1, #1
    it eq
    orreq r2, r2, #0x0800       // every other time: subs r0, #imm8
    adr r3, 2f
    strh r2, [r3]
    dsb
    isb
    b 1f
1:  nop
    .balign 4
2:  adds r0, #0
    bx lr
.space 64                       // copy reads 64 bytes
.bss
.balign 4
buffer: .space 128
.balign 4096
.space 4094
straddling: .space 6
