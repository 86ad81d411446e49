/* op_pad.c: PAD and PADV2, s8: the zero point, or a given value, around a tensor. */
#include "ops.h"
#include "params.h"

#include <stddef.h>

static const char *prepare(op_t *op)
{
    pad_params_t *params = op->params;
    const tensor_t *value = op_input(op, 2);
    params->value = value == NULL ? tensor_zero_point(op_output(op)) : ((const int8_t *)value->data)[0];
    for (uint32_t axis = 0; axis < op_output(op)->rank; axis++) {
        params->before[axis] = tensor_integer_at(op_input(op, 1), 2 * axis);
    }
    return NULL;
}

static void eval(const op_t *op)
{
    const pad_params_t *params = op->params;
    const tensor_t *input = op_input(op, 0);
    const tensor_t *output = op_output(op);
    const int8_t *x = (const int8_t *)input->data;
    int8_t *out = (int8_t *)output->data;
    const uint32_t elements = tensor_elements(output);
    int32_t index[MAX_RANK] = {0};
    for (uint32_t i = 0; i < elements; i++) {
        int is_inside = 1;
        for (uint32_t axis = 0; axis < output->rank; axis++) {
            const int32_t at = index[axis] - params->before[axis];
            is_inside &= at >= 0 && at < input->dims[axis];
        }
        out[i] = is_inside ? *x++ : (int8_t)params->value;
        for (int32_t axis = output->rank - 1; axis >= 0 && ++index[axis] == output->dims[axis]; axis--) {
            index[axis] = 0;
        }
    }
}

const op_kind_t op_pad = {sizeof(pad_params_t), prepare, eval};
