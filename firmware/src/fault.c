/*
 * fault.c: reports a fault over the serial port instead of hanging, then resets.
 *
 * One line: e-[fault <kind> pc=0x........ lr=0x........ cfsr=0x........ addr=0x........]
 * kind: memory, bus, usage (decoded from CFSR) or hard. addr: the address that was accessed, or 0 when the core does not know.
 */
#include "fault.h"

#include "cortex_m.h"
#include "image.h"
#include "port.h"
#include "wire.h"

/* What the core pushes at exception entry, Armv7-M ARM, B1.5.6. */
typedef struct {
    uint32_t r0, r1, r2, r3, r12, lr, pc, xpsr;
} frame_t;

static const char *fault_kind(uint32_t cfsr)
{
    if ((cfsr & 0x000000FFu) != 0) {
        return "memory";
    }
    if ((cfsr & 0x0000FF00u) != 0) {
        return "bus";
    }
    return (cfsr & 0xFFFF0000u) != 0 ? "usage" : "hard";
}

static void print_register(const char *name, uint32_t value)
{
    wire_text(name);
    wire_hex(value, 8);
}

/* Called by fault_handler below with the stack pointer of the moment of the fault. */
__attribute__((used)) _Noreturn static void fault_report(uintptr_t stack_pointer)
{
    uint32_t cfsr = SCB_CFSR;
    uint32_t address = 0;
    if ((cfsr & SCB_CFSR_BFARVALID) != 0) {
        address = SCB_BFAR;
    } else if ((cfsr & SCB_CFSR_MMARVALID) != 0) {
        address = SCB_MMFAR;
    }

    /* After a stack overflow the pointer lies below RAM and there is no frame to read. */
    static const frame_t unknown;
    const frame_t *frame = &unknown;
    if (stack_pointer >= (uintptr_t)__stack_start && stack_pointer + sizeof *frame <= (uintptr_t)__ram_end) {
        frame = (const frame_t *)stack_pointer;
    }

    wire_text("\r\ne-[fault ");
    wire_text(fault_kind(cfsr));
    print_register(" pc=0x", frame->pc);
    print_register(" lr=0x", frame->lr);
    print_register(" cfsr=0x", cfsr);
    print_register(" addr=0x", address);
    wire_text("]\r\n");
    port_uart_flush();
    port_reset();
}

/* Naked: the old stack pointer may be useless, so the report runs on a fresh stack. */
__attribute__((naked)) void fault_handler(void)
{
    __asm volatile("mrs r0, msp\n\t"
                   "ldr r1, =__stack_end\n\t"
                   "msr msp, r1\n\t"
                   "b fault_report\n\t");
}
