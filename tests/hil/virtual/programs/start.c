/*
 * start.c: start-up of the programs in this folder. Each is a function `program`; what it returns is printed as eight
 * hexadecimal digits through semihosting, so that two processors that compute differently also print differently.
 */
#include <stdint.h>
#include <string.h>

extern uint32_t ram_end[], data_load[], data_start[], data_end[], bss_start[], bss_end[];

uint32_t program(void);
void reset_handler(void);
void unexpected(void);
void hard_fault(void) __attribute__((weak, alias("unexpected")));
void bus_fault(void) __attribute__((weak, alias("unexpected")));
void usage_fault(void) __attribute__((weak, alias("unexpected")));
void sv_call(void) __attribute__((weak, alias("unexpected")));

enum { SYS_WRITE0 = 0x04, SYS_EXIT = 0x18 };
enum { EXIT_OK = 0x20026, EXIT_FAULT = 0x20023 };

static void semihost(uint32_t operation, uintptr_t argument)
{
    register uint32_t r0 __asm__("r0") = operation;
    register uintptr_t r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

void unexpected(void)
{
    semihost(SYS_WRITE0, (uintptr_t) "unexpected exception\n");
    semihost(SYS_EXIT, EXIT_FAULT);
    for (;;) {
    }
}

void reset_handler(void)
{
    volatile uint32_t *const cpacr = (volatile uint32_t *)0xE000ED88;
    *cpacr |= 0xFu << 20; /* FPU on */
    __asm__ volatile("dsb\n\tisb");
    memcpy(data_start, data_load, (uintptr_t)data_end - (uintptr_t)data_start);
    memset(bss_start, 0, (uintptr_t)bss_end - (uintptr_t)bss_start);

    const uint32_t result = program();
    char text[10] = {[8] = '\n'};
    for (uint32_t i = 0; i < 8; i++) {
        text[i] = "0123456789abcdef"[result >> (28 - 4 * i) & 15];
    }
    semihost(SYS_WRITE0, (uintptr_t)text);
    semihost(SYS_EXIT, EXIT_OK);
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) static const struct {
    void *stack;
    void (*handlers[15])(void);
} vectors = {
    ram_end,
    {reset_handler, unexpected, hard_fault, unexpected, bus_fault, usage_fault, 0, 0, 0, 0, sv_call},
};
