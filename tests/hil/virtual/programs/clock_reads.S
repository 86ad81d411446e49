// clock_reads.S: the virtual board leaves a block before an instruction that reads the time and goes on there, also inside
// IT blocks. What is read differs between processors and is not used.
#include "common.inc"
    push {r4-r7, lr}
    movs r0, #1
    ldr r4, =0xe000e018         // SysTick current value
    ldr r6, =0xe000e010
    ldr r5, =0xffffff
    str r5, [r6, #4]            // reload
    movs r5, #5
    str r5, [r6]                // processor clock, on, no interrupt
    movs r7, #200
1:  adds r0, #1
    ldr r5, [r4]
    MIX r7
    ldr r5, [r4]
    ldr r5, [r4]
    cmp r7, #100
    itete hs
    ldrhs r5, [r4]
    ldrlo r5, [r4]
    addhs r0, #5
    addlo r0, #9
    ittet lo
    addlo r0, #1
    ldrlo r5, [r4]
    ldrhs r5, [r4]
    eorlo r0, r7
    it ne
    ldrne.w r5, [r4]
    cmp r7, #77
    it eq
    ldreq r5, [r4]
    push {r0-r3}
    ldm r4, {r5}
    pop {r0-r3}
    mov r1, r6
    ldmia r1!, {r2, r3, r5}     // its third word is the time
    subs r1, r1, r6
    MIX r1
    ldrd r3, r5, [r6, #4]
    movs r3, #3
2:  ldr r5, [r4]                // a block that begins so
    subs r3, #1
    bne 2b
    subs r7, #1
    beq 3f
    b.w 1b
3:  str r7, [r6]
    pop {r4-r7, pc}
