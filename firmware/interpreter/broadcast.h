/*
 * broadcast.h: walks two inputs that are broadcast to the shape of the output, as numpy does.
 */
#ifndef BROADCAST_H
#define BROADCAST_H

#include "interpreter.h"

/* How far to step in `tensor` along each axis of `output`; 0 along axes that repeat. */
void broadcast_steps(const tensor_t *tensor, const tensor_t *output, int32_t step[MAX_RANK]);

typedef int8_t (*binary_fn)(int32_t a, int32_t b, const void *params);

/* out[i] = function(a[i], b[i], op->params) over the output of an operator with two s8 inputs. */
static inline void for_each_pair(const op_t *op, binary_fn function)
{
    const tensor_t *a = op_input(op, 0);
    const tensor_t *b = op_input(op, 1);
    const tensor_t *output = op_output(op);
    const int8_t *a_data = (const int8_t *)a->data;
    const int8_t *b_data = (const int8_t *)b->data;
    int8_t *out = (int8_t *)output->data;
    const uint32_t elements = tensor_elements(output);

    if (tensor_elements(a) == elements && tensor_elements(b) == elements) {
        for (uint32_t i = 0; i < elements; i++) {
            out[i] = function(a_data[i], b_data[i], op->params);
        }
        return;
    }

    int32_t a_step[MAX_RANK], b_step[MAX_RANK];
    broadcast_steps(a, output, a_step);
    broadcast_steps(b, output, b_step);
    int32_t index[MAX_RANK] = {0};
    int32_t a_at = 0, b_at = 0;
    for (uint32_t i = 0; i < elements; i++) {
        out[i] = function(a_data[a_at], b_data[b_at], op->params);
        for (int32_t axis = output->rank - 1; axis >= 0; axis--) {
            a_at += a_step[axis];
            b_at += b_step[axis];
            if (++index[axis] < output->dims[axis]) {
                break;
            }
            a_at -= index[axis] * a_step[axis];
            b_at -= index[axis] * b_step[axis];
            index[axis] = 0;
        }
    }
}

#endif
