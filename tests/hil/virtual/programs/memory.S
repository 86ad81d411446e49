// memory.S: single, double, multiple, unaligned, exclusive and literal accesses.
#include "common.inc"
    push {r4-r11, lr}
    movs r0, #1
    ldr r8, =scratch
    ldr r10, =12345
1:  ldr r1, =0x12345678
    ldr.w r2, =0x9abcdef0
    ldrd r3, r4, literals
    stmia r8!, {r1-r4}
    stm.w r8, {r0, r4-r7, r9}
    ldmdb r8!, {r1-r4}
    ldm r8, {r5-r7}
    MIX r5
    strd r1, r7, [r8, #16]!
    ldrd r5, r6, [r8], #-16
    ldr r7, [r8, #1]            // unaligned
    str r7, [r8, #18]
    ldrh r4, [r8, #19]
    strh r4, [r8, #27]
    ldrsb r5, [r8, #3]
    ldrsh.w r6, [r8], #2
    strb r6, [r8, #-2]!
    and r4, #63
    ldrb r7, [r8, r4]
    push {r0-r7}
    pop {r1-r7, r9}
    MIX r9
    MIX r6
2:  ldrex r4, [r8]
    adds r4, #1
    strex r5, r4, [r8]
    cmp r5, #0
    bne 2b
    ldrexb r4, [r8]
    clrex
    strexb r5, r4, [r8]         // fails: the reservation is gone
    MIX r5
    vldr s0, literals
    vldmia r8, {s1-s8}
    vstmia r8, {s0-s3}
    vpush {s4-s9}
    vpop {s10-s15}
    vmov r4, r5, s10, s11
    MIX r4
    pld [r8]
    subs r10, #1
    beq 3f
    b.w 1b
3:  pop {r4-r11, pc}
.ltorg
.balign 4
literals: .word 0x3f800000, 0xcafe
.bss
.balign 4
scratch: .space 256
