/* op_add.c: ADD and SUB, s8. Both inputs are brought to twice the larger scale with 20 more bits, added and scaled back. */
#include "broadcast.h"
#include "ops.h"
#include "params.h"

#include <stddef.h>

enum { LEFT_SHIFT = 20 };

static const char *prepare(op_t *op)
{
    const double a = (double)tensor_scale(op_input(op, 0));
    const double b = (double)tensor_scale(op_input(op, 1));
    const double twice_max = 2.0 * (a > b ? a : b);
    const double out = (double)(1 << LEFT_SHIFT) * (double)tensor_scale(op_output(op));
    add_params_t *params = op->params;

    params->a_zero_point = tensor_zero_point(op_input(op, 0));
    params->b_zero_point = tensor_zero_point(op_input(op, 1));
    params->out_zero_point = tensor_zero_point(op_output(op));
    params->a_factor = quantize_multiplier(a / twice_max);
    params->b_factor = quantize_multiplier(b / twice_max);
    params->out_factor = quantize_multiplier(twice_max / out);
    params->range = activation_range(fb_i8(op_options(op), BINARY_ACTIVATION, ACTIVATION_NONE), op_output(op));
    return params->out_factor.shift > 0 ? bad_scales : NULL;
}

static inline int8_t finish(int32_t sum, const add_params_t *params)
{
    const int32_t value = requantize(sum, params->out_factor) + params->out_zero_point;
    return (int8_t)clamp_s32(value, params->range.low, params->range.high);
}

static inline int8_t add(int32_t a, int32_t b, const void *data)
{
    const add_params_t *params = data;
    const int32_t scaled_a = requantize((a - params->a_zero_point) * (1 << LEFT_SHIFT), params->a_factor);
    const int32_t scaled_b = requantize((b - params->b_zero_point) * (1 << LEFT_SHIFT), params->b_factor);
    return finish(scaled_a + scaled_b, params);
}

static inline int8_t sub(int32_t a, int32_t b, const void *data)
{
    const add_params_t *params = data;
    const int32_t scaled_a = requantize((a - params->a_zero_point) * (1 << LEFT_SHIFT), params->a_factor);
    const int32_t scaled_b = requantize((b - params->b_zero_point) * (1 << LEFT_SHIFT), params->b_factor);
    return finish(scaled_a - scaled_b, params);
}

static void eval_add(const op_t *op)
{
    for_each_pair(op, add);
}

static void eval_sub(const op_t *op)
{
    for_each_pair(op, sub);
}

const op_kind_t op_add = {sizeof(add_params_t), prepare, eval_add};
const op_kind_t op_sub = {sizeof(add_params_t), prepare, eval_sub};
