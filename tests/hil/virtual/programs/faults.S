// faults.S: instructions that fault and are stepped over by the handler, at the labels bad_*; also a
// jump to where nothing is, and a breakpoint.
#include "common.inc"
    push {r4-r7, lr}
    ldr r1, =0xe000ed24         // SHCSR: BusFault and UsageFault handlers on
    ldr r2, [r1]
    orr r2, r2, #0x60000
    str r2, [r1]
    movs r0, #1
    ldr r4, =0xb0000000         // nothing is there
    movs r7, #20
1:  adds r0, #1
bad_load:
    ldr.w r5, [r4]
    adds r0, #2
bad_store:
    str.w r0, [r4]
bad_store_2:
    str.w r0, [r4, #4]
    cmp r7, #10
    itett hs
    addhs r0, #3
    addlo r0, #4
bad_in_it:
    ldrhs.w r5, [r4]
    addhs r0, #5
bad_undefined:
    udf.w #0
    mov r1, r4
bad_multiple:
    ldm.w r1!, {r2, r3, r5}
    sub r1, r1, r4
    MIX r1
    orr r6, r4, #1
    blx r6                      // no instruction there: the handler goes back
    adds r0, #5
    ldr r6, =bad_state
    blx r6                      // an even address
    adds r0, #6
    bkpt 0                      // no debugger, but a handler
    adds r0, #7
    MIX r7
    subs r7, #1
    bne 1b
    pop {r4-r7, pc}
.ltorg
.balign 4
bad_state:                      // entered in Arm state, which the core does not have
    movs r0, #0
    bx lr
.global hard_fault, bus_fault, usage_fault
.thumb_func
hard_fault:                     // the BKPT, and MemManage, which is not enabled
.thumb_func
bus_fault:
.thumb_func
usage_fault:
    ldr r1, [sp, #24]           // the stacked program counter
    ldr r2, =bad_state
    ldr r3, =0xb0000000
    cmp r1, r2
    it ne
    cmpne r1, r3
    beq 2f
    ldrh r2, [r1]
    movw r3, #0xbe00            // BKPT 0
    cmp r2, r3
    ite eq
    addeq r1, #2
    addne r1, #4
    str r1, [sp, #24]
    ldr r1, [sp, #28]           // the stacked IT state advances, as the instruction would have done
    ldr r2, =0x0600fc00
    ands r2, r1
    cbz r2, 1f
    ubfx r2, r1, #25, #2        // ITSTATE[1:0]
    ubfx r3, r1, #10, #6        // ITSTATE[7:2]
    orr r2, r2, r3, lsl #2
    and r3, r2, #0x1f
    bic r2, r2, #0x1f
    lsls r3, #1
    tst r3, #0xf
    ite eq
    moveq r2, #0
    andne r3, r3, #0x1f
    it ne
    orrne r2, r3
    bfi r1, r2, #25, #2
    lsrs r2, #2
    bfi r1, r2, #10, #6
    str r1, [sp, #28]
1:  bx lr
2:  ldr r2, [sp, #20]           // the caller of what cannot run
    bic r2, #1
    str r2, [sp, #24]
    ldr r1, [sp, #28]           // in Thumb state
    orr r1, #0x01000000
    str r1, [sp, #28]
    bx lr
.ltorg
