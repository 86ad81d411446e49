/*
 * protocol_fuzz.c: the bench firmware on the host, with a port and a model that are stubs, fed with streams of bytes.
 *
 * As a filter: stdin holds streams, each behind its length (uint32_t, little endian). For each one the firmware starts, reads
 * the stream to its end, and what it sent comes out behind a byte (1: it was stopped in the middle of too much work, else 0)
 * and its length. Its variables live on from one stream to the next: that gives more states than a chip, which zeroes them.
 *
 * Guided by coverage, by hand, from the root of the repository (an input byte 1 becomes the CRC that belongs there):
 *   FLAGS='-g -O1 -DLIBFUZZER -DSTUB=0 -DHIL_MLPERF_DATA -DHIL_BOARD="host" -Ifirmware/include -Ifirmware/src'
 *   FLAGS="$FLAGS -fsanitize=address,undefined"
 *   clang $FLAGS -fsanitize=fuzzer-no-link -include tests/c/cortex_m_host.h -c firmware/src/{wire,rig,mlperf,mlperf_data,main,bench}.c
 *   clang $FLAGS -fsanitize=fuzzer tests/c/protocol_fuzz.c {wire,rig,mlperf,mlperf_data,main,bench}.o -o protocol_fuzz
 *   ./protocol_fuzz -max_len=1500
 *
 * STUB chooses the model: 0 has the name of the benchmark's autoencoder, 1 tensors of all types, 2 the name of the benchmark's
 * image classifier. With NO_ROOM there is no free RAM.
 */
#include <sanitizer/asan_interface.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "build_id.h"
#include "model.h"
#include "port.h"
#include "wire.h"

int firmware_main(void);
uint32_t cycles_now(void);

enum {
    MOST_STREAM_BYTES = 1 << 20,
    MOST_SENT_BYTES = 1 << 20,
    MOST_INFERENCES = 100, /* of one stream */
    DEADLINE_S = 20,       /* of one stream; a hang ends the process */
};

/* RAM as the linker script lays it out, with gaps that must not be touched. */
enum { GAP = 64, STACK_BYTES = 1024 };
#ifdef NO_ROOM
enum { FREE_BYTES = 16 };
#define FREE_END "1168"
#else
enum { FREE_BYTES = 4096 };
#define FREE_END "5248"
#endif
enum { RAM_BYTES = GAP + STACK_BYTES + GAP + FREE_BYTES + GAP };

uint8_t host_ram[RAM_BYTES] __attribute__((aligned(16)));
#define AT(symbol, offset) ".globl " symbol "\n.set " symbol ", host_ram+" offset "\n"
__asm__(AT("__stack_start", "64") AT("__stack_end", "1088") AT("__arena_start", "64") AT("__arena_end", "64")
            AT("host_data_start", "1152") AT("__data_end", "1152") AT("host_bss_start", "1152") AT("__bss_end", "1152")
                AT("__ram_end", FREE_END));

const char build_id[] = "0000000000000000";

static const uint8_t *stream;
static uint32_t stream_left, inferences, sent_bytes;
static uint8_t sent[MOST_SENT_BYTES];
static jmp_buf restart;
enum { STARTS = 0, RESTARTS, HAS_READ_ALL, WORKS_TOO_LONG }; /* why it is at `restart` */

/* --- the port */

void port_init(void)
{
}

uint32_t port_clock_hz(void)
{
    return 64000000;
}

uint8_t port_uart_read(void)
{
    if (stream_left == 0) {
        longjmp(restart, HAS_READ_ALL);
    }
    stream_left--;
    return *stream++;
}

void port_uart_write(uint8_t byte)
{
    if (sent_bytes == MOST_SENT_BYTES) {
        longjmp(restart, WORKS_TOO_LONG);
    }
    sent[sent_bytes++] = byte;
}

void port_uart_flush(void)
{
}

uint32_t port_coarse_us(void)
{
    static uint32_t us = UINT32_MAX - 1000; /* so that it wraps soon */
    us += 1 + us % 7;
    return us;
}

uint32_t cycles_now(void)
{
    return 64 * port_coarse_us();
}

void port_trigger(int high)
{
    (void)high;
}

void port_memory(int caches_on, uint32_t more_wait_states)
{
    (void)caches_on;
    (void)more_wait_states;
}

void port_reset(void)
{
    longjmp(restart, RESTARTS);
}

/* --- the model: outputs are inputs, as far as there are any */

#if STUB == 0
#define NAME "ad01_fuzz"
static const model_io_t inputs[] = {{NULL, 48, MODEL_S8, 0.25f, 3}};
static const model_io_t outputs[] = {{NULL, 48, MODEL_S8, 0.5f, -4}};
#elif STUB == 1
#define NAME "types"
static const model_io_t inputs[] = {{NULL, 20, MODEL_S8, 1.0f, 0}, {NULL, 1, MODEL_U8, 1.0f, 0}, {NULL, 19, MODEL_U8, 1.0f, 0}};
static const model_io_t outputs[] = {
    {NULL, 8, MODEL_F32, 1.0f, 0}, {NULL, 8, MODEL_S32, 1e30f, 7}, {NULL, 4, MODEL_S16, 1e-3f, 0}, {NULL, 3, MODEL_U8, 2.0f, 128},
};
#else
#define NAME "ic01_fuzz"
static const model_io_t inputs[] = {{NULL, 300, MODEL_S8, 1.0f, 0}};
static const model_io_t outputs[] = {{NULL, 10, MODEL_S8, 0.00390625f, -128}};
#endif
enum { INPUTS = sizeof inputs / sizeof inputs[0], OUTPUTS = sizeof outputs / sizeof outputs[0], TENSOR_BYTES = 304 };

static _Alignas(16) uint8_t input_data[INPUTS][TENSOR_BYTES];
static _Alignas(16) uint8_t output_data[OUTPUTS][TENSOR_BYTES];

const model_info_t model_info = {
    .name = NAME,
    .engine = "none",
    .sha256 = "0000000000000000000000000000000000000000000000000000000000000000",
    .input_count = INPUTS,
    .output_count = OUTPUTS,
    .layer_count = 3,
    .arena_bytes = sizeof input_data + sizeof output_data,
};

const char *model_init(void)
{
    return NULL;
}

model_io_t model_input(uint32_t index)
{
    model_io_t io = inputs[index];
    io.data = input_data[index];
    return io;
}

model_io_t model_output(uint32_t index)
{
    model_io_t io = outputs[index];
    io.data = output_data[index];
    return io;
}

void model_run(void)
{
    if (++inferences > MOST_INFERENCES) {
        longjmp(restart, WORKS_TOO_LONG);
    }
    for (uint32_t i = 0; i < OUTPUTS; i++) {
        memcpy(output_data[i], input_data[0], outputs[i].bytes);
    }
}

void model_run_layers(model_mark_fn mark)
{
    model_run();
    for (uint32_t i = 0; i < model_info.layer_count; i++) {
        mark(i);
    }
}

/* --- streams */

static void poison_gaps(void)
{
    ASAN_POISON_MEMORY_REGION(&host_ram[0], GAP);
    ASAN_POISON_MEMORY_REGION(&host_ram[GAP + STACK_BYTES], GAP);
    ASAN_POISON_MEMORY_REGION(&host_ram[RAM_BYTES - GAP], GAP);
    for (uint32_t i = 0; i < INPUTS; i++) {
        ASAN_POISON_MEMORY_REGION(&input_data[i][(inputs[i].bytes + 7) & ~7u], TENSOR_BYTES - ((inputs[i].bytes + 7) & ~7u));
    }
    for (uint32_t i = 0; i < OUTPUTS; i++) {
        ASAN_POISON_MEMORY_REGION(&output_data[i][(outputs[i].bytes + 7) & ~7u], TENSOR_BYTES - ((outputs[i].bytes + 7) & ~7u));
    }
}

/* Whether the firmware read all of it. */
static bool serve(const uint8_t *bytes, uint32_t count)
{
    stream = bytes;
    stream_left = count;
    inferences = 0;
    sent_bytes = 0;
    switch (setjmp(restart)) {
    case STARTS:
    case RESTARTS:
        firmware_main();
        abort(); /* it never returns */
    case HAS_READ_ALL:
        return true;
    default:
        return false;
    }
}

#ifdef LIBFUZZER

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[MOST_STREAM_BYTES];
    uint32_t count = 0, crc = 0;

    poison_gaps();
    for (size_t i = 0; i < size && count < sizeof bytes - 16; i++) {
        if (data[i] == 1) {
            count += (uint32_t)sprintf((char *)&bytes[count], " %08x", (unsigned)crc);
            continue;
        }
        bytes[count++] = data[i];
        crc = data[i] == '%' ? 0 : wire_crc(crc, data[i]);
    }
    (void)serve(bytes, count);
    return 0;
}

#else

int main(void)
{
    static uint8_t bytes[MOST_STREAM_BYTES];
    uint32_t count;

    poison_gaps();
    while (fread(&count, sizeof count, 1, stdin) == 1) {
        if (count > sizeof bytes || fread(bytes, 1, count, stdin) != count) {
            return 2;
        }
        (void)alarm(DEADLINE_S);
        uint8_t is_stopped = !serve(bytes, count);
        fwrite(&is_stopped, 1, 1, stdout);
        fwrite(&sent_bytes, sizeof sent_bytes, 1, stdout);
        fwrite(sent, 1, sent_bytes, stdout);
    }
    return 0;
}

#endif
