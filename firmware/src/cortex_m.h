/*
 * cortex_m.h: registers of the Armv7-M core itself that the firmware uses, and its cycle counter.
 *
 * Names and addresses: Armv7-M Architecture Reference Manual (DDI 0403E), B3.2 (system control space) and C1.8 (DWT).
 */
#ifndef CORTEX_M_H
#define CORTEX_M_H

#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define SCB_VTOR REGISTER(0xE000ED08)   /* B3.2.5: address of the vector table */
#define SCB_AIRCR REGISTER(0xE000ED0C)  /* B3.2.6 */
#define SCB_CCR REGISTER(0xE000ED14)    /* B3.2.8 */
#define SCB_CFSR REGISTER(0xE000ED28)   /* B3.2.15: what kind of fault; write ones to clear */
#define SCB_MMFAR REGISTER(0xE000ED34)  /* B3.2.17: address of a memory fault */
#define SCB_BFAR REGISTER(0xE000ED38)   /* B3.2.18: address of a bus fault */
#define SCB_CPACR REGISTER(0xE000ED88)  /* B3.2.20 */
#define DEMCR REGISTER(0xE000EDFC)      /* C1.6.5 */
#define DWT_CTRL REGISTER(0xE0001000)   /* C1.8.7 */
#define DWT_CYCCNT REGISTER(0xE0001004) /* C1.8.8 */
#define DWT_LAR REGISTER(0xE0001FB0)    /* CoreSight lock; there is one on the Cortex-M7 (DDI 0489, table 11-1) */

#define SCB_AIRCR_VECTKEY (0x05FAu << 16)
#define SCB_AIRCR_SYSRESETREQ (1u << 2)
#define SCB_CFSR_MMARVALID (1u << 7)
#define SCB_CFSR_BFARVALID (1u << 15)
#define SCB_CPACR_CP10_CP11_FULL (0xFu << 20)
#define DEMCR_TRCENA (1u << 24)
#define DWT_CTRL_CYCCNTENA (1u << 0)
#define DWT_LAR_KEY 0xC5ACCE55u

/* Waits until every store has reached its target and drops instructions fetched before it. */
static inline void cortex_m_sync(void)
{
    __asm volatile("dsb\n\tisb" ::: "memory");
}

/* Makes the cycle counter count, also after a debugger that left has switched it off: pyOCD clears TRCENA when it is done,
 * while the program that it has flashed runs already. */
static inline void cycles_run(void)
{
    DEMCR |= DEMCR_TRCENA;
    DWT_LAR = DWT_LAR_KEY;
    DWT_CTRL |= DWT_CTRL_CYCCNTENA;
}

/* Core cycles, modulo 2^32: 67 s at 64 MHz, 20 s at 216 MHz. */
static inline uint32_t cycles_now(void)
{
    return DWT_CYCCNT;
}

/* Asks for a reset of the whole chip and waits for it. */
_Noreturn static inline void cortex_m_reset(void)
{
    cortex_m_sync();
    SCB_AIRCR = SCB_AIRCR_VECTKEY | SCB_AIRCR_SYSRESETREQ;
    cortex_m_sync();
    for (;;) {
    }
}

#endif
