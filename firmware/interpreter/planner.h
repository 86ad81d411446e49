/*
 * planner.h: places tensors in the arena: largest first, each at the lowest offset where it fits between those that are alive
 * at the same time (as TFLM's greedy planner). Must equal codegen/engines/reference_interpreter.py::plan_greedy.
 */
#ifndef PLANNER_H
#define PLANNER_H

#include <stdint.h>

typedef struct {
    uint32_t bytes;
    uint16_t first; /* first and last step at which it is alive, both included */
    uint16_t last;
    uint32_t offset;   /* result */
    uint16_t tensor;   /* whose it is; for the caller */
    uint16_t by_size;  /* work space: index of the buffer at this rank of size */
    uint16_t by_offset; /* work space: index of the buffer at this rank of offset */
} planned_buffer_t;

/* Sets every offset and returns the bytes of the plan. */
uint32_t plan_greedy(planned_buffer_t *buffers, uint32_t count);

#endif
