/* op_concatenation.c: CONCATENATION along any axis; all tensors have one scale. */
#include "ops.h"

#include <stddef.h>
#include <string.h>

static const char *prepare(op_t *op)
{
    (void)op;
    return NULL;
}

static void eval(const op_t *op)
{
    const tensor_t *output = op_output(op);
    const int32_t option = fb_i32(op_options(op), CONCATENATION_AXIS, 0);
    const int32_t axis = option < 0 ? option + output->rank : option;
    uint32_t rows = 1; /* over the axes in front */
    for (int32_t i = 0; i < axis; i++) {
        rows *= (uint32_t)output->dims[i];
    }
    uint8_t *out = output->data;
    for (uint32_t row = 0; row < rows; row++) {
        for (uint32_t i = 0; i < op_input_count(op); i++) {
            const tensor_t *input = op_input(op, i);
            const uint32_t bytes = tensor_bytes(input) / rows;
            memcpy(out, input->data + row * bytes, bytes);
            out += bytes;
        }
    }
}

const op_kind_t op_concatenation = {0, prepare, eval};
