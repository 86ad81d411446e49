/* Erases and programs the flash of an STM32F745 to F756 (RM0385, embedded flash memory).
 *
 * Called as stm32l4plus.S says. Words of 32 bits: the supply is 2.7 V or more.
 *
 * hil/pyocd_targets.py holds the assembled words; a test compares them with this file.
 */
    .syntax unified
    .cpu cortex-m7
    .thumb

    .equ FLASH, 0x40023C00
    .equ KEYR, 0x04
    .equ SR, 0x0C
    .equ CR, 0x10

    .equ CR_PG, 1 << 0
    .equ CR_SER, 1 << 1
    .equ CR_PSIZE_32, 2 << 8
    .equ CR_STRT, 1 << 16
    .equ CR_LOCK, 1 << 31
    .equ SR_BSY, 1 << 16
    .equ SR_ERRORS, 0xF2                /* OPERR, WRPERR to ERSERR */

    .text
    bkpt #0
    nop

    .global init                        /* r0, r1, r2: not used */
    .thumb_func
init:
    ldr r3, =FLASH
    ldr r0, [r3, #CR]
    cmp r0, #0                          /* LOCK is the uppermost bit */
    bpl 1f
    ldr r0, =0x45670123
    str r0, [r3, #KEYR]
    ldr r0, =0xCDEF89AB
    str r0, [r3, #KEYR]
1:  movs r0, #0
    bx lr

    .global uninit
    .thumb_func
uninit:
    ldr r3, =FLASH
    mov r0, #CR_LOCK
    str r0, [r3, #CR]
    movs r0, #0
    bx lr

    .global erase_sector                /* r0: its address */
    .thumb_func
erase_sector:
    ldr r3, =FLASH
    movs r1, #SR_ERRORS
    str r1, [r3, #SR]                   /* ones clear */
    ubfx r0, r0, #15, #5                /* in units of 32 KiB: 0 to 3, then 4 and 8, 16, 24 */
    cmp r0, #8
    itt hs
    lsrhs r0, r0, #3
    addhs r0, r0, #4
    lsls r0, r0, #3                     /* SNB */
    orr r0, r0, #CR_SER
    orr r0, r0, #CR_PSIZE_32
    str r0, [r3, #CR]
    orr r0, r0, #CR_STRT
    str r0, [r3, #CR]
    b finish

    .global program_page                /* r0: address, r1: bytes, r2: data; all multiples of 4 */
    .thumb_func
program_page:
    push {r4, lr}
    ldr r3, =FLASH
    movs r4, #SR_ERRORS
    str r4, [r3, #SR]
    movw r4, #CR_PSIZE_32 | CR_PG
    str r4, [r3, #CR]
1:  ldr r4, [r2], #4
    adds ip, r4, #1
    beq 3f                              /* erased flash reads so: left as it is */
    str r4, [r0]
    dsb
2:  ldr r4, [r3, #SR]
    tst r4, #SR_BSY
    bne 2b
    tst r4, #SR_ERRORS
    bne 4f
3:  adds r0, #4
    subs r1, #4
    bhi 1b
4:  pop {r4, lr}
finish:                                 /* waits, then gives the errors */
    dsb
1:  ldr r0, [r3, #SR]
    tst r0, #SR_BSY
    bne 1b
    movs r1, #0
    str r1, [r3, #CR]
    and r0, r0, #SR_ERRORS
    bx lr

    .ltorg
    .balign 4
