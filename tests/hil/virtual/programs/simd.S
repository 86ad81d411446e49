// simd.S: the DSP extension and long multiplies, as the int8 kernels use them.
#include "common.inc"
    push {r4-r11, lr}
    movs r0, #1
    ldr r1, =0x12f4a6c8
    ldr r2, =0x7f80ff01
    mov.w r12, #2000
1:  sxtb16 r3, r1
    sxtb16 r4, r1, ror #8
    sxtb16 r5, r2
    sxtb16 r6, r2, ror #8
    smlad r0, r3, r5, r0
    smlad r0, r4, r6, r0
    smladx r0, r3, r6, r0
    smuad r7, r3, r4
    smlsd r0, r7, r5, r0
    smlald r8, r9, r3, r5
    uxtab16 r10, r3, r4
    sadd16 r11, r3, r4
    usub8 r7, r1, r2
    sel r7, r1, r2
    usada8 r0, r7, r1, r0
    pkhbt r7, r3, r4, lsl #16
    pkhtb r11, r3, r4, asr #8
    qadd r7, r7, r11
    qdsub r7, r7, r1
    ssat r11, #8, r7, asr #4
    usat16 r10, #7, r10
    smlabt r0, r1, r2, r0
    smlawb r0, r1, r2, r0
    smmlar r0, r1, r2, r0
    smull r3, r4, r1, r2
    umaal r3, r4, r5, r6
    sdiv r7, r1, r11
    mls r0, r7, r11, r0
    rbit r5, r0
    clz r6, r5
    rev16 r5, r5
    bfi r1, r5, #3, #17
    ubfx r6, r5, #5, #9
    ror.w r2, r2, #1
    eor r2, r2, r6
    MIX r3
    MIX r8
    MIX r10
    subs r12, #1
    beq 2f
    b.w 1b
2:  pop {r4-r11, pc}
