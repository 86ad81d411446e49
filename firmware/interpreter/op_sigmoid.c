/* op_sigmoid.c: LOGISTIC and TANH, s8, by the fixed-point functions on Q4.27. */
#include "ops.h"
#include "params.h"

#include <stddef.h>

enum { INTEGER_BITS = 4 };

static const char *prepare(op_t *op)
{
    const tensor_t *input = op_input(op, 0);
    sigmoid_params_t *params = op->params;
    params->in_zero_point = tensor_zero_point(input);
    params->factor = quantize_multiplier((double)tensor_scale(input) * (double)(1 << (31 - INTEGER_BITS)));
    if (params->factor.shift < 0 || params->factor.shift > 30) {
        return bad_scales;
    }
    params->radius = (int32_t)(((int64_t)((1 << INTEGER_BITS) - 1) << (31 - INTEGER_BITS)) >> params->factor.shift);
    return NULL;
}

/* 1 / (1 + exp(-x)) in Q0.31. */
static int32_t logistic(int32_t x)
{
    if (x == 0) {
        return 1 << 30;
    }
    const int32_t of_positive = one_over_one_plus(exp_of_negative(x > 0 ? -x : x, INTEGER_BITS));
    return x > 0 ? of_positive : INT32_MAX - of_positive;
}

/* tanh(x) in Q0.31: (1 - e) / (1 + e) of e = exp(-2 |x|). The bits of 2x in Q5.26 are those of x in Q4.27. */
static int32_t hyperbolic_tangent(int32_t x)
{
    if (x == 0) {
        return 0;
    }
    const int32_t of_positive = one_minus_over_one_plus(exp_of_negative(x > 0 ? -x : x, INTEGER_BITS + 1));
    return x > 0 ? of_positive : -of_positive;
}

static void eval_logistic(const op_t *op)
{
    const sigmoid_params_t *params = op->params;
    const int8_t *x = (const int8_t *)op_input(op, 0)->data;
    int8_t *out = (int8_t *)op_output(op)->data;
    const uint32_t elements = tensor_elements(op_output(op));
    for (uint32_t i = 0; i < elements; i++) {
        const int32_t value = x[i] - params->in_zero_point;
        if (value <= -params->radius) {
            out[i] = INT8_MIN;
        } else if (value >= params->radius) {
            out[i] = INT8_MAX;
        } else {
            /* Scale 1/256, zero point -128. */
            const int32_t q8 = rounding_shift_right(logistic(requantize(value, params->factor)), 31 - 8);
            out[i] = (int8_t)clamp_s32(q8 - 128, INT8_MIN, INT8_MAX);
        }
    }
}

static void eval_tanh(const op_t *op)
{
    const sigmoid_params_t *params = op->params;
    const int8_t *x = (const int8_t *)op_input(op, 0)->data;
    int8_t *out = (int8_t *)op_output(op)->data;
    const uint32_t elements = tensor_elements(op_output(op));
    for (uint32_t i = 0; i < elements; i++) {
        const int32_t value = x[i] - params->in_zero_point;
        if (value <= -params->radius) {
            out[i] = INT8_MIN;
        } else if (value >= params->radius) {
            out[i] = INT8_MAX;
        } else {
            /* Scale 1/128, zero point 0. */
            const int32_t q7 = rounding_shift_right(hyperbolic_tangent(requantize(value, params->factor)), 31 - 7);
            out[i] = (int8_t)clamp_s32(q7, INT8_MIN, INT8_MAX);
        }
    }
}

const op_kind_t op_logistic = {sizeof(sigmoid_params_t), prepare, eval_logistic};
const op_kind_t op_tanh = {sizeof(sigmoid_params_t), prepare, eval_tanh};
