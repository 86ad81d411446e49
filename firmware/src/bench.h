/*
 * bench.h: the model under measurement: its inputs, its outputs, timed inferences, memory use.
 *
 * The free RAM behind .bss is the bench's own and is counted nowhere: an input store, from which the model's inputs are
 * copied before every inference (an inference may overwrite them), and a table of 64-bit cycles, one per layer. A model that
 * leaves no room for the store gets its inputs written directly, and they serve for one inference only.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stdint.h>

/* Readings of the core's cycle counter and of the chip's microsecond timer, taken together. */
typedef struct {
    uint32_t cycles;
    uint32_t us;
} bench_instant_t;

/* Measures the empty window, sets up the store. After model_init. */
void bench_init(void);

/* Bytes of all inputs, and of all outputs, one after another. */
uint32_t bench_in_bytes(void);
uint32_t bench_out_bytes(void);
/* Bytes of the input store; 0 when the model leaves no room for it. */
uint32_t bench_store_bytes(void);

/* Byte `offset` (below bench_in_bytes) of the next inference's inputs. */
void bench_write_input(uint32_t offset, uint8_t value);
uint8_t bench_read_input(uint32_t offset);
/* RAM of the store behind the inputs, on an 8-byte boundary, for what belongs to the inputs but is no part of a measurement;
 * NULL when there are not so many bytes. */
void *bench_spare_ram(uint32_t bytes);
/* Whether `repeats` inferences may run now: always with a store, else one per set of inputs written. */
bool bench_inputs_ready(uint32_t repeats);

/* One inference; returns its cycles, less those of an empty window. The trigger pin is high while the window runs. */
uint64_t bench_run(void);
/* One inference, untimed, trigger pin left alone. */
void bench_infer(void);
/* Whether there is room for the table of layers. */
bool bench_has_layer_table(void);
/* One inference with marks; returns the cycles of each layer (model_info.layer_count entries). */
const uint64_t *bench_run_layers(void);

/* Whether outputs of an inference are there to be read, and byte `offset` (below bench_out_bytes) of them. */
bool bench_outputs_valid(void);
uint8_t bench_read_output(uint32_t offset);

/* Both counters, for the host's plausibility check. */
bench_instant_t bench_instant(void);
/* Deepest use of the stack since reset. */
uint32_t bench_stack_peak_bytes(void);

#endif
