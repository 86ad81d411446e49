/* op_hard_swish.c: HARD_SWISH, s8: x * relu6(x + 3) / 6 in 16-bit fixed point. */
#include "ops.h"
#include "params.h"

#include <stddef.h>

/* The high half of a Q31 multiplier, rounded, as a Q15 one. */
static int32_t q15_of(multiplier_t factor)
{
    const int32_t saturated = 0x7fffffff - (1 << 15);
    return factor.multiplier >= saturated ? INT16_MAX : (factor.multiplier + (1 << 15)) >> 16;
}

static const char *prepare(op_t *op)
{
    const tensor_t *input = op_input(op, 0);
    const tensor_t *output = op_output(op);
    hard_swish_params_t *params = op->params;

    const double hires_scale = (double)tensor_scale(input) / 128.0; /* the input with 7 more bits */
    const double reluish_scale = 3.0 / 32768.0;                     /* [-3, 3) as Q15 */
    const multiplier_t out = quantize_multiplier(hires_scale / (double)tensor_scale(output));
    const multiplier_t reluish = quantize_multiplier(hires_scale / reluish_scale);
    params->in_zero_point = tensor_zero_point(input);
    params->out_zero_point = tensor_zero_point(output);
    params->out_multiplier = q15_of(out);
    params->out_shift = out.shift;
    params->reluish_multiplier = q15_of(reluish);
    params->reluish_shift = reluish.shift;
    return out.shift > 0 ? bad_scales : NULL;
}

static int32_t clamp_s16(int32_t x)
{
    return clamp_s32(x, INT16_MIN, INT16_MAX);
}

/* a * b in Q15, rounded to nearest, ties away from zero. */
static int32_t rounding_mul_q15(int32_t a, int32_t b)
{
    if (a == INT16_MIN && b == INT16_MIN) {
        return INT16_MAX;
    }
    const int32_t product = a * b;
    const int32_t nudge = product >= 0 ? 1 << 14 : 1 - (1 << 14);
    return (product + nudge) / (1 << 15);
}

/* a * b in Q15, rounded towards zero. */
static int32_t truncating_mul_q15(int32_t a, int32_t b)
{
    return a == INT16_MIN && b == INT16_MIN ? INT16_MAX : a * b / (1 << 15);
}

/* relu6(x + 3) / 6 in Q15 of x with 7 more bits. */
static int32_t reluish(int32_t hires, const hard_swish_params_t *params)
{
    const int32_t shift = params->reluish_shift;
    int32_t value = hires;
    if (shift > 0) {
        /* All but the last bit now, and saturating: that must not show in the result. */
        const int64_t wide = (int64_t)value * ((int64_t)1 << (shift - 1));
        value = wide > INT16_MAX ? INT16_MAX : wide < INT16_MIN ? INT16_MIN : (int32_t)wide;
    }
    value = rounding_mul_q15(value, params->reluish_multiplier);
    if (shift > 0) {
        value = clamp_s16(value * 2);
    } else if (shift < 0) {
        value = rounding_shift_right(value, -shift);
    }
    return (value + (1 << 15)) >> 1; /* [-1, 1) to [0, 1) */
}

static void eval(const op_t *op)
{
    const hard_swish_params_t *params = op->params;
    const int8_t *x = (const int8_t *)op_input(op, 0)->data;
    int8_t *out = (int8_t *)op_output(op)->data;
    const uint32_t elements = tensor_elements(op_output(op));
    for (uint32_t i = 0; i < elements; i++) {
        const int32_t hires = (x[i] - params->in_zero_point) * 128;
        const int32_t on_out_scale = rounding_mul_q15(hires, params->out_multiplier);
        const int32_t product = truncating_mul_q15(reluish(hires, params), on_out_scale);
        const int32_t value = rounding_shift_right(product, -params->out_shift) + params->out_zero_point;
        out[i] = (int8_t)clamp_s32(value, INT8_MIN, INT8_MAX);
    }
}

const op_kind_t op_hard_swish = {sizeof(hard_swish_params_t), prepare, eval};
