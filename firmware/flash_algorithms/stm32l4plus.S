/* Erases and programs the flash of an STM32L4+ with 2 MiB in two banks (RM0432, FLASH).
 *
 * The debugger loads this into RAM, calls one of the entries with its arguments in r0 to r2 and the
 * return address on the breakpoint at the start; r0 answers 0 or the error flags of FLASH_SR. It is
 * position-independent and keeps nothing in RAM. The caller has reset the chip: it runs from MSI.
 *
 * hil/pyocd_targets.py holds the assembled words; a test compares them with this file.
 */
    .syntax unified
    .cpu cortex-m4
    .thumb

    .equ FLASH, 0x40022000
    .equ ACR, 0x00
    .equ KEYR, 0x08
    .equ SR, 0x10
    .equ CR, 0x14

    .equ ACR_ICEN_DCEN, 0x600           /* both caches of the accelerator, off at first ... */
    .equ ACR_ICRST_DCRST, 0x1800        /* ... then empty: they do not see what is programmed */
    .equ CR_PG, 1 << 0
    .equ CR_PER, 1 << 1
    .equ CR_STRT, 1 << 16
    .equ CR_LOCK, 1 << 31
    .equ SR_BSY, 1 << 16
    .equ SR_ERRORS, 0xC3FA              /* OPERR to FASTERR, RDERR, OPTVERR */

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
1:  ldr r0, [r3, #ACR]
    bic r0, r0, #ACR_ICEN_DCEN
    str r0, [r3, #ACR]
    orr r1, r0, #ACR_ICRST_DCRST
    str r1, [r3, #ACR]
    str r0, [r3, #ACR]
    movs r0, #0
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
    ldr r1, =SR_ERRORS
    str r1, [r3, #SR]                   /* ones clear */
    ubfx r0, r0, #12, #9                /* 256 pages of 4 KiB in each bank; the bank is bit 8 ... */
    lsls r0, r0, #3                     /* ... and so becomes BKER, above PNB */
    orr r0, r0, #CR_PER
    str r0, [r3, #CR]
    orr r0, r0, #CR_STRT
    str r0, [r3, #CR]
    b finish

    .global program_page                /* r0: address, r1: bytes, r2: data; all multiples of 8 */
    .thumb_func
program_page:
    push {r4, r5, lr}
    ldr r3, =FLASH
    ldr r4, =SR_ERRORS
    str r4, [r3, #SR]
    movs r4, #CR_PG
    str r4, [r3, #CR]
1:  ldrd r4, r5, [r2], #8
    and ip, r4, r5
    cmn ip, #1
    beq 3f                              /* erased flash reads so: left as it is */
    str r4, [r0]
    str r5, [r0, #4]
    dsb
2:  ldr r4, [r3, #SR]
    tst r4, #SR_BSY
    bne 2b
    ldr r5, =SR_ERRORS
    tst r4, r5
    bne 4f
3:  adds r0, #8
    subs r1, #8
    bhi 1b
4:  pop {r4, r5, lr}
finish:                                 /* waits, then gives the errors */
    dsb
1:  ldr r0, [r3, #SR]
    tst r0, #SR_BSY
    bne 1b
    movs r1, #0
    str r1, [r3, #CR]
    ldr r1, =SR_ERRORS
    ands r0, r0, r1
    bx lr

    .ltorg
    .balign 4
