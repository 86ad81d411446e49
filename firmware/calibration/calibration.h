/*
 * calibration.h: the table of routines that the generated microbenchmarks.S brings; its sizes are in the generated
 * calibration_sizes.h.
 */
#ifndef CALIBRATION_H
#define CALIBRATION_H

#include <stdbool.h>
#include <stdint.h>

#include "calibration_sizes.h" /* how many there are, and where what of them lies */

/* One routine: `turns` times its copies of the body; returns the cycles between its two readings of the counter. */
typedef uint32_t (*calibration_routine_fn)(uint32_t turns, uint8_t *data, volatile uint32_t *cycle_counter);

/* Addresses are numbers: some are views of a memory that the linker knows at another address. */
typedef struct {
    uint32_t linked_at;
    uint32_t bytes;
    uint32_t run_at;
    uint32_t copy_to; /* the memory at run_at, at its own address: first copied there; 0: it runs where it is */
    uint32_t data;   /* the memory that its loads and stores go to */
    uint32_t turns;
    uint32_t runs;   /* the last one counts: 1 with empty caches, 2 with warm ones */
    uint32_t caches_on;        /* for port_memory */
    uint32_t more_wait_states;
} calibration_routine_t;

/* Of each benchmark the short and the long routine. */
extern const calibration_routine_t calibration_routines[CALIBRATION_BENCHMARKS][2];

#endif
