/*
 * startup.c: from reset to main. Vector table, stack paint, FPU, .data, .bss, C++ constructors of linked libraries.
 *
 * No interrupt is ever enabled, so the table ends after the core's own exceptions.
 */
#include "cortex_m.h"
#include "fault.h"
#include "image.h"

int main(void);
_Noreturn void reset_handler(void);

typedef void (*vector_t)(void);
extern const vector_t __init_array_start[], __init_array_end[];

/* Armv7-M ARM, B1.5.2. MemManage, BusFault and UsageFault are left disabled and arrive as HardFault, their reason in CFSR. */
__attribute__((section(".vectors"), used)) static const vector_t vectors[16] = {
    (vector_t)__stack_end,
    reset_handler,
    fault_handler, /* NMI */
    fault_handler, /* HardFault */
    fault_handler, /* MemManage */
    fault_handler, /* BusFault */
    fault_handler, /* UsageFault */
    0,
    0,
    0,
    0,
    fault_handler, /* SVCall */
    fault_handler, /* DebugMonitor */
    0,
    fault_handler, /* PendSV */
    fault_handler, /* SysTick */
};

/* Everything below the stack pointer of this moment; called before anything else so that nothing deeper has run yet. */
static inline void paint_stack(void)
{
    uint32_t *top;
    __asm volatile("mov %0, sp" : "=r"(top));
    for (volatile uint32_t *word = __stack_start; word < top; word++) {
        *word = STACK_PAINT;
    }
}

/* volatile: GCC would call memcpy, of which nothing is known here. */
static inline void copy(volatile uint32_t *to, const volatile uint32_t *end, const volatile uint32_t *from)
{
    while (to < end) {
        *to++ = *from++;
    }
}

_Noreturn void reset_handler(void)
{
    paint_stack();

    /* The F746 fetches its vectors from the flash's ITCM address (RM0385, boot configuration); the image is linked elsewhere. */
    SCB_VTOR = (uint32_t)(uintptr_t)vectors;
    SCB_CPACR |= SCB_CPACR_CP10_CP11_FULL;
    cortex_m_sync();

    copy(__weights_ram_start, __weights_ram_end, __weights_ram_load);
    copy(__data_start, __data_end, __data_load);
    for (volatile uint32_t *word = __bss_start; word < __bss_end; word++) {
        *word = 0;
    }
    for (const vector_t *constructor = __init_array_start; constructor < __init_array_end; constructor++) {
        (*constructor)();
    }
    main();
    cortex_m_reset();
}
