/* op_mul.c: MUL, s8. */
#include "broadcast.h"
#include "ops.h"
#include "params.h"

#include <stddef.h>

static const char *prepare(op_t *op)
{
    const tensor_t *a = op_input(op, 0);
    const tensor_t *b = op_input(op, 1);
    const tensor_t *output = op_output(op);
    mul_params_t *params = op->params;

    params->a_zero_point = tensor_zero_point(a);
    params->b_zero_point = tensor_zero_point(b);
    params->out_zero_point = tensor_zero_point(output);
    params->factor = quantize_multiplier((double)tensor_scale(a) * (double)tensor_scale(b) / (double)tensor_scale(output));
    params->range = activation_range(fb_i8(op_options(op), BINARY_ACTIVATION, ACTIVATION_NONE), output);
    return NULL;
}

static inline int8_t mul(int32_t a, int32_t b, const void *data)
{
    const mul_params_t *params = data;
    const int32_t product = (a - params->a_zero_point) * (b - params->b_zero_point);
    const int32_t value = requantize(product, params->factor) + params->out_zero_point;
    return (int8_t)clamp_s32(value, params->range.low, params->range.high);
}

static void eval(const op_t *op)
{
    for_each_pair(op, mul);
}

const op_kind_t op_mul = {sizeof(mul_params_t), prepare, eval};
