// it_blocks.S: IT blocks of every length whose instructions pass or do not; branches, loads, stores and returns in them.
#include "common.inc"
    push {r4-r9, lr}
    movs r0, #1
    ldr r8, =scratch
    movs r4, #255
1:  movs r5, #3
2:  cmp r5, r4
    it eq
    addeq r0, #1
    it ne
    addne.w r0, r0, r0, lsl #1
    ite lo
    addlo r0, #5
    subhs r0, #7
    itt hi
    addhi r0, r0, r5
    eorhi r0, r4
    itte mi
    mulmi r6, r4, r5
    addmi r0, r6
    subpl r0, #1
    ittt gt
    ldrgt r6, [r8]
    addgt r6, #1
    strgt r6, [r8]
    iteet lt
    rsblt r0, r0, #0
    uxtbge r6, r0
    sxthge.w r7, r0
    addlt r0, #9
    itttt vs                    // never
    addvs r0, #1
    addvs.w r0, r0, #2
    ldrvs r6, [r8, #4]
    strvs.w r0, [r8, #4]
    tst r4, r5
    it eq                       // a flag setter inside
    cmpeq r4, #100
    itee cs
    sbccs r0, r0, r5
    adccc r0, r0, r4
    addcc r0, #1
    cmp r4, #128
    itt hs                      // a branch ends an IT block, and is often not taken
    addhs r0, #2
    bhs 3f
    MIX r5
3:  cmp r4, #64
    it lo
    bllo leaf
    vmov s0, r4
    cmp r5, #2
    itet eq
    vaddeq.f32 s0, s0, s0
    vmovne r6, s0
    vmoveq r6, s0
    MIX r6
    cmp r5, #1
    it hi
    stmhi r8, {r4-r6}
    it hi
    ldmhi r8, {r4-r6}
    subs r5, #1
    bne 2b
    subs r4, #1
    beq 4f
    b.w 1b
4:  ldr r6, [r8]
    MIX r6
    pop {r4-r9, pc}

.thumb_func
leaf:
    push {r4, lr}
    tst r4, #1
    itt eq
    addeq r0, #11
    popeq {r4, pc}              // returns every second time
    tst r4, #2
    it ne
    ldmiane sp!, {r4, pc}
    pop {r4, lr}
    cmp r4, #40
    it lo
    bxlo lr
    adds r0, #13
    bx lr
.ltorg
.bss
.balign 4
scratch: .space 16
