/*
 * model_runner.c: runs a generated model on inputs that are linked in and prints the outputs through semihosting, one line of
 * hexadecimal digits per inference. Odd inferences go through model_run_layers, so that both ways are compared.
 */
#include <stdint.h>
#include <string.h>

#include "model.h"

extern uint8_t model_arena[];
extern const uint8_t runner_inputs[];
extern const uint32_t runner_inferences;

extern uint32_t ram_end[], data_load[], data_start[], data_end[], bss_start[], bss_end[];

enum { SYS_WRITE0 = 0x04, SYS_EXIT = 0x18 };
enum { EXIT_OK = 0x20026, EXIT_FAULT = 0x20023 };

static void semihost(uint32_t operation, uintptr_t argument)
{
    register uint32_t r0 __asm__("r0") = operation;
    register uintptr_t r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static void print(const char *text)
{
    semihost(SYS_WRITE0, (uintptr_t)text);
}

static _Noreturn void stop(uint32_t reason)
{
    semihost(SYS_EXIT, reason);
    for (;;) {
    }
}

static void print_hex(const uint8_t *bytes, uint32_t count)
{
    static const char digits[] = "0123456789abcdef";
    char text[129];
    uint32_t n = 0;
    for (uint32_t i = 0; i < count; i++) {
        text[n++] = digits[bytes[i] >> 4];
        text[n++] = digits[bytes[i] & 15];
        if (n == sizeof text - 1 || i == count - 1) {
            text[n] = '\0';
            print(text);
            n = 0;
        }
    }
}

static uint32_t marks;

/* Layers have their numbers in the order in which they run first; one may run several times. */
static void check_mark(uint32_t layer)
{
    if (layer > marks) {
        print("marks out of order\n");
        stop(EXIT_FAULT);
    }
    marks += layer == marks;
}

static void run_all(void)
{
    const uint8_t *in = runner_inputs;
    for (uint32_t k = 0; k < runner_inferences; k++) {
        for (uint32_t i = 0; i < model_info.input_count; i++) {
            const model_io_t input = model_input(i);
            memcpy(input.data, in, input.bytes);
            in += input.bytes;
        }
        if (k % 2 == 0) {
            model_run();
        } else {
            marks = 0;
            model_run_layers(check_mark);
            if (marks != model_info.layer_count) {
                print("marks missing\n");
                stop(EXIT_FAULT);
            }
        }
        for (uint32_t i = 0; i < model_info.output_count; i++) {
            const model_io_t output = model_output(i);
            print_hex(output.data, output.bytes);
        }
        print("\n");
    }
}

static void reset_handler(void)
{
    volatile uint32_t *const cpacr = (volatile uint32_t *)0xE000ED88;
    *cpacr |= 0xFu << 20; /* FPU on */
    __asm__ volatile("dsb\n\tisb");
    memcpy(data_start, data_load, (uintptr_t)data_end - (uintptr_t)data_start);
    memset(bss_start, 0, (uintptr_t)bss_end - (uintptr_t)bss_start);

    memset(model_arena, 0xa5, model_info.arena_bytes); /* nobody may count on zeros */

    const char *problem = model_init();
    if (problem != NULL) {
        print("model_init: ");
        print(problem);
        print("\n");
    } else {
        run_all();
    }
    stop(EXIT_OK);
}

static void fault_handler(void)
{
    print("fault\n");
    stop(EXIT_FAULT);
}

__attribute__((section(".vectors"), used)) static const struct {
    void *stack;
    void (*handlers[15])(void);
} vectors = {ram_end, {reset_handler, fault_handler, fault_handler, fault_handler, fault_handler, fault_handler}};
