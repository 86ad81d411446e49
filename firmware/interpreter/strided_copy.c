/* strided_copy.c: TRANSPOSE and STRIDED_SLICE, once their strides are known. */
#include "params.h"

#include <string.h>

void eval_strided_copy(const op_t *op)
{
    const slice_params_t *params = op->params;
    const tensor_t *input = op_input(op, 0);
    const tensor_t *output = op_output(op);
    const uint32_t item_bytes = tensor_item_bytes(output);
    const uint32_t elements = tensor_elements(output);
    int32_t index[MAX_RANK] = {0};
    int32_t at = params->begin;
    for (uint32_t i = 0; i < elements; i++) {
        memcpy(output->data + i * item_bytes, input->data + (uint32_t)at * item_bytes, item_bytes);
        for (int32_t axis = input->rank - 1; axis >= 0; axis--) {
            at += params->stride[axis];
            if (++index[axis] < params->count[axis]) {
                break;
            }
            at -= index[axis] * params->stride[axis];
            index[axis] = 0;
        }
    }
}
