// system.S: SVC and its handler, hints, barriers, special registers.
#include "common.inc"
    push {r4-r7, lr}
    movs r0, #1
    movs r7, #100
1:  adds r4, r7, #1
    vmov s1, r4                 // so that the exception saves the FPU's registers too
    svc #3
    vmov r5, s1
    MIX r5
    mrs r5, control             // and on the process stack
    mov r6, sp
    sub r4, sp, #64
    msr psp, r4
    orr r5, r5, #2
    msr control, r5
    isb
    push {r0, r7}
    svc #6
    pop {r1, r4}
    bic r5, r5, #2
    msr control, r5
    isb
    MIX r4
    cmp r6, sp
    it ne
    addne r0, #1
    MIX r7
    yield
    adds r0, #1
    sev
    wfe                         // the event is there
    adds r0, #2
    cmp r7, #50
    itet hs
    addhs r0, #1
    yieldlo
    svchs #4                    // in an IT block
    itte lo
    svclo #5                    // goes on in the IT block
    addlo r0, #7
    subhs r0, #7
    nop.w
    dsb
    isb
    dmb
    cpsid i
    mrs r5, primask
    cpsie i
    mrs r6, primask
    MIX r5
    MIX r6
    mrs r5, basepri
    msr psp, r4
    mrs r6, psp
    MIX r5
    msr apsr_nzcvq, r4
    bmi 2f
    adds r0, #1
2:  subs r7, #1
    beq 3f
    b.w 1b
3:  ldr r5, =calls
    ldr r5, [r5]
    MIX r5
    pop {r4-r7, pc}
.ltorg
.global sv_call
.thumb_func
sv_call:
    push {r4, lr}
    ldr r1, =calls
    ldr r2, [r1]
    adds r2, #1
    str r2, [r1]
    vmov s1, r2
    vmov s20, r2
    pop {r4, pc}
.ltorg
.bss
.balign 4
calls: .space 4
