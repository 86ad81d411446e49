/* op_transpose.c: TRANSPOSE of items of any size. */
#include "ops.h"
#include "params.h"

#include <stddef.h>

static const char *prepare(op_t *op)
{
    /* Walking the output in order, one step along its axis is `stride` items of the input. */
    const tensor_t *input = op_input(op, 0);
    slice_params_t *params = op->params;
    for (int32_t axis = 0; axis < input->rank; axis++) {
        const int32_t in_axis = tensor_integer_at(op_input(op, 1), (uint32_t)axis);
        params->stride[axis] = 1;
        for (int32_t i = in_axis + 1; i < input->rank; i++) {
            params->stride[axis] *= input->dims[i];
        }
        params->count[axis] = input->dims[in_axis];
    }
    return NULL;
}

const op_kind_t op_transpose = {sizeof(slice_params_t), prepare, eval_strided_copy};
