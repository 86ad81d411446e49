/*
 * bench.c: see bench.h.
 *
 * What a window holds: trigger high, both counters read, the call, both counters read, trigger low. No interrupt is enabled
 * and the serial port has been flushed, so nothing else runs. The cycles between the two readings with an empty call are
 * measured the same way at start-up and subtracted.
 */
#include "bench.h"

#include <stddef.h>
#include <string.h>

#include "cortex_m.h"
#include "image.h"
#include "model.h"
#include "port.h"

enum { EMPTY_WINDOWS = 8 }; /* measured empty; the first ones also fill caches, the smallest counts */

static uint8_t *store;         /* NULL: no room */
static uint32_t store_bytes;
static uint64_t *layer_cycles; /* NULL: no room */
static uint32_t in_bytes, out_bytes;
static uint64_t empty_window_cycles, empty_lap_cycles;
static bench_instant_t lap_start;
static bool inputs_fresh;  /* written since the last inference; matters without a store only */
static bool outputs_valid; /* no input was written into the arena since the last inference */

bench_instant_t bench_instant(void)
{
    bench_instant_t now;
    cortex_m_sync();
    now.us = port_coarse_us();
    now.cycles = cycles_now();
    return now;
}

/* 64-bit cycles between two instants. The cycle counter wraps after 2^32 cycles; the microsecond timer says how often it
 * did, as long as the two clocks agree to within 2^31 cycles and the window is shorter than 2^32 us (71 minutes). */
static uint64_t cycles_between(bench_instant_t start, bench_instant_t end)
{
    uint32_t low = end.cycles - start.cycles;
    uint64_t estimate = (uint64_t)(end.us - start.us) * (port_clock_hz() / 1000000u);
    uint64_t wraps = estimate + (1ull << 31) < low ? 0 : (estimate + (1ull << 31) - low) >> 32;
    return (wraps << 32) + low;
}

/* Cycles of one call. Not inlined: the empty window must be the same code as the real one. */
__attribute__((noinline)) static uint64_t window_cycles(void (*body)(void))
{
    bench_instant_t start, end;
    port_uart_flush();
    port_trigger(1);
    start.us = port_coarse_us();
    cortex_m_sync();
    start.cycles = cycles_now();
    body();
    cortex_m_sync();
    end.cycles = cycles_now();
    end.us = port_coarse_us();
    port_trigger(0);
    return cycles_between(start, end);
}

/* Cycles since the last call, without those that the call itself takes before and after its own readings. */
__attribute__((noinline)) static uint64_t lap_cycles(void)
{
    uint64_t cycles = cycles_between(lap_start, bench_instant());
    lap_start = bench_instant();
    return cycles;
}

static uint64_t less_overhead(uint64_t cycles, uint64_t overhead)
{
    return cycles > overhead ? cycles - overhead : 0;
}

static void nothing(void)
{
}

static uint32_t total_bytes(uint32_t count, model_io_t (*tensor)(uint32_t))
{
    uint32_t bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        bytes += tensor(i).bytes;
    }
    return bytes;
}

/* The store gets the free RAM, the table of layers its end; when there is not enough for both, the store comes first. */
static void divide_free_ram(void)
{
    uint8_t *start = (uint8_t *)(((uintptr_t)__bss_end + 7) & ~(uintptr_t)7);
    uint32_t free_bytes = start < __ram_end ? IMAGE_BYTES(start, __ram_end) & ~7u : 0;
    uint32_t table_bytes = model_info.layer_count * (uint32_t)sizeof *layer_cycles;

    bool has_store = in_bytes <= free_bytes;
    if (table_bytes <= free_bytes - (has_store ? in_bytes : 0)) {
        free_bytes -= table_bytes;
        layer_cycles = (uint64_t *)(void *)(start + free_bytes);
    }
    if (has_store) {
        store = start;
        store_bytes = free_bytes;
    }
}

static void measure_overheads(void)
{
    empty_window_cycles = UINT64_MAX;
    empty_lap_cycles = UINT64_MAX;
    for (uint32_t i = 0; i < EMPTY_WINDOWS; i++) {
        uint64_t window = window_cycles(nothing);
        empty_window_cycles = window < empty_window_cycles ? window : empty_window_cycles;
    }
    (void)lap_cycles(); /* sets the start of the first one */
    for (uint32_t i = 0; i < EMPTY_WINDOWS; i++) {
        uint64_t lap = lap_cycles();
        empty_lap_cycles = lap < empty_lap_cycles ? lap : empty_lap_cycles;
    }
}

void bench_init(void)
{
    in_bytes = total_bytes(model_info.input_count, model_input);
    out_bytes = total_bytes(model_info.output_count, model_output);
    divide_free_ram();
    for (uint32_t i = 0; i < in_bytes; i++) {
        bench_write_input(i, 0);
    }

    measure_overheads();
}

uint32_t bench_in_bytes(void)
{
    return in_bytes;
}

uint32_t bench_out_bytes(void)
{
    return out_bytes;
}

uint32_t bench_store_bytes(void)
{
    return store_bytes;
}

/* Address of byte `offset` of all tensors one after another. */
static uint8_t *tensor_byte(uint32_t offset, model_io_t (*tensor)(uint32_t))
{
    uint32_t index = 0;
    model_io_t io = tensor(0);
    while (offset >= io.bytes) {
        offset -= io.bytes;
        io = tensor(++index);
    }
    return io.data + offset;
}

void bench_write_input(uint32_t offset, uint8_t value)
{
    if (store != NULL) {
        store[offset] = value;
        return;
    }
    *tensor_byte(offset, model_input) = value;
    inputs_fresh = true;
    outputs_valid = false;
}

uint8_t bench_read_input(uint32_t offset)
{
    return store != NULL ? store[offset] : *tensor_byte(offset, model_input);
}

void *bench_spare_ram(uint32_t bytes)
{
    uint32_t used = (in_bytes + 7) & ~7u;
    return store_bytes >= used && bytes <= store_bytes - used ? store + used : NULL;
}

bool bench_inputs_ready(uint32_t repeats)
{
    return store != NULL || repeats == 0 || (inputs_fresh && repeats == 1);
}

static void prepare_inputs(void)
{
    const uint8_t *from = store;
    for (uint32_t i = 0; from != NULL && i < model_info.input_count; i++) {
        model_io_t input = model_input(i);
        memcpy(input.data, from, input.bytes);
        from += input.bytes;
    }
    inputs_fresh = false;
    outputs_valid = true;
}

uint64_t bench_run(void)
{
    prepare_inputs();
    return less_overhead(window_cycles(model_run), empty_window_cycles);
}

void bench_infer(void)
{
    prepare_inputs();
    model_run();
}

static void mark(uint32_t layer)
{
    layer_cycles[layer] += less_overhead(lap_cycles(), empty_lap_cycles);
}

bool bench_has_layer_table(void)
{
    return layer_cycles != NULL;
}

const uint64_t *bench_run_layers(void)
{
    for (uint32_t i = 0; i < model_info.layer_count; i++) {
        layer_cycles[i] = 0;
    }
    prepare_inputs();
    port_uart_flush();
    (void)lap_cycles();
    model_run_layers(mark);
    return layer_cycles;
}

bool bench_outputs_valid(void)
{
    return outputs_valid;
}

uint8_t bench_read_output(uint32_t offset)
{
    return *tensor_byte(offset, model_output);
}

uint32_t bench_stack_peak_bytes(void)
{
    const volatile uint32_t *word = __stack_start;
    while (word < __stack_end && *word == STACK_PAINT) {
        word++;
    }
    return IMAGE_BYTES(word, __stack_end);
}
