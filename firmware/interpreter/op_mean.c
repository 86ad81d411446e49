/* op_mean.c: MEAN over any axes, s8. */
#include "ops.h"
#include "params.h"

#include <stddef.h>

static const char *prepare(op_t *op)
{
    const tensor_t *input = op_input(op, 0);
    const tensor_t *axes = op_input(op, 1);
    const tensor_t *output = op_output(op);
    mean_params_t *params = op->params;

    int32_t count = 1; /* elements of one mean */
    for (uint32_t i = 0; i < tensor_elements(axes); i++) {
        const int32_t axis = tensor_integer_at(axes, i);
        const int32_t positive = axis < 0 ? axis + input->rank : axis;
        if (params->is_reduced[positive] == 0) {
            params->is_reduced[positive] = 1;
            count *= input->dims[positive];
        }
    }

    /* 1 / count becomes part of the multiplier, without losing its top bit. */
    const multiplier_t factor = quantize_multiplier((double)tensor_scale(input) / (double)tensor_scale(output));
    int32_t shift = 31 - __builtin_clz((uint32_t)count);
    shift = shift < 31 + factor.shift ? shift : 31 + factor.shift;
    params->factor.multiplier = (int32_t)(((int64_t)factor.multiplier << shift) / count);
    params->factor.shift = factor.shift - shift;
    params->zero_point_sum = tensor_zero_point(input) * count;
    params->out_zero_point = tensor_zero_point(output);
    return NULL;
}

/* Moves to the next element along the axes whose `is_reduced` is as asked; returns 0 after the last one. */
static int advance(const tensor_t *input, const mean_params_t *params, uint32_t is_reduced, int32_t index[MAX_RANK], int32_t *at)
{
    int32_t step = 1;
    for (int32_t axis = input->rank - 1; axis >= 0; axis--) {
        if (params->is_reduced[axis] == is_reduced) {
            *at += step;
            if (++index[axis] < input->dims[axis]) {
                return 1;
            }
            *at -= index[axis] * step;
            index[axis] = 0;
        }
        step *= input->dims[axis];
    }
    return 0;
}

static void eval(const op_t *op)
{
    const mean_params_t *params = op->params;
    const tensor_t *input = op_input(op, 0);
    const int8_t *in_data = (const int8_t *)input->data;
    int8_t *out = (int8_t *)op_output(op)->data;
    int32_t index[MAX_RANK] = {0};
    int32_t at = 0;
    do {
        int32_t sum = 0;
        do {
            sum += in_data[at];
        } while (advance(input, params, 1, index, &at));
        const int32_t value = requantize(sum - params->zero_point_sum, params->factor) + params->out_zero_point;
        *out++ = (int8_t)clamp_s32(value, INT8_MIN, INT8_MAX);
    } while (advance(input, params, 0, index, &at));
}

const op_kind_t op_mean = {sizeof(mean_params_t), prepare, eval};
