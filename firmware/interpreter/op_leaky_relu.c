/* op_leaky_relu.c: LEAKY_RELU, s8. */
#include "ops.h"
#include "params.h"

#include <stddef.h>

static const char *prepare(op_t *op)
{
    const tensor_t *input = op_input(op, 0);
    const tensor_t *output = op_output(op);
    const float alpha = fb_f32(op_options(op), LEAKY_RELU_ALPHA, 0.0f);
    leaky_relu_params_t *params = op->params;

    params->in_zero_point = tensor_zero_point(input);
    params->out_zero_point = tensor_zero_point(output);
    const double in_scale = (double)tensor_scale(input), out_scale = (double)tensor_scale(output);
    params->positive_factor = quantize_multiplier(in_scale / out_scale);
    params->negative_factor = quantize_multiplier(in_scale * (double)alpha / out_scale);
    return NULL;
}

static void eval(const op_t *op)
{
    const leaky_relu_params_t *params = op->params;
    const int8_t *x = (const int8_t *)op_input(op, 0)->data;
    int8_t *out = (int8_t *)op_output(op)->data;
    const uint32_t elements = tensor_elements(op_output(op));
    for (uint32_t i = 0; i < elements; i++) {
        const int32_t value = x[i] - params->in_zero_point;
        const multiplier_t factor = value >= 0 ? params->positive_factor : params->negative_factor;
        /* A negative slope: rounded as a positive one, then negated. */
        const int32_t scaled = factor.multiplier < 0
                                   ? -requantize(value, (multiplier_t){-factor.multiplier, factor.shift})
                                   : requantize(value, factor);
        out[i] = (int8_t)clamp_s32(scaled + params->out_zero_point, INT8_MIN, INT8_MAX);
    }
}

const op_kind_t op_leaky_relu = {sizeof(leaky_relu_params_t), prepare, eval};
