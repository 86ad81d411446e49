// fpu.S: single precision, all of it finite.
#include "common.inc"
    push {r4-r6, lr}
    vpush {s16-s19}
    movs r0, #1
    mov.w r4, #3000
    vmov.f32 s0, #1.0
    vmov.f32 s1, #0.5
1:  vmov s2, r4
    vcvt.f32.u32 s2, s2
    vadd.f32 s3, s2, s0
    vmul.f32 s4, s3, s1
    vdiv.f32 s5, s0, s3
    vsqrt.f32 s6, s2
    vfma.f32 s7, s5, s6
    vmls.f32 s8, s4, s5
    vneg.f32 s9, s4
    vabs.f32 s10, s9
    vsub.f32 s16, s10, s6
    vcmp.f32 s7, s6
    vmrs apsr_nzcv, fpscr
    ite gt
    vmovgt.f32 s17, s6
    vmovle.f32 s17, s7
    vcvt.s32.f32 s18, s16
    vcvtr.s32.f32 s19, s17
    vmov r5, s18
    vmov r6, s19
    MIX r5
    MIX r6
    vcvtb.f16.f32 s11, s5
    vmov r5, s11
    MIX r5
    vmov r5, s7
    MIX r5
    subs r4, #1
    bne 1b
    vpop {s16-s19}
    pop {r4-r6, pc}
