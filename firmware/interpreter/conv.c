/* conv.c: what the preparations of convolutions, dense layers and pools have in common. */
#include "params.h"

#include <stddef.h>

const char bad_scales[] = "an operator's scales are out of range";

window_t window_of(fb_table_t options)
{
    return (window_t){
        .stride_h = fb_i32(options, WINDOW_STRIDE_H, 0),
        .stride_w = fb_i32(options, WINDOW_STRIDE_W, 0),
        .dilation_h = 1,
        .dilation_w = 1,
    };
}

static int32_t pad_before(int32_t in_size, int32_t out_size, int32_t kernel, int32_t stride, int32_t dilation)
{
    const int32_t total = (out_size - 1) * stride + (kernel - 1) * dilation + 1 - in_size;
    return total > 0 ? total / 2 : 0;
}

void window_pad(window_t *window, fb_table_t options, const tensor_t *input, const tensor_t *output, int32_t kh, int32_t kw)
{
    if (fb_i8(options, WINDOW_PADDING, PADDING_SAME) == PADDING_SAME) {
        window->pad_top = pad_before(input->dims[1], output->dims[1], kh, window->stride_h, window->dilation_h);
        window->pad_left = pad_before(input->dims[2], output->dims[2], kw, window->stride_w, window->dilation_w);
    }
}

const char *conv_prepare(op_t *op, int32_t activation)
{
    const tensor_t *input = op_input(op, 0);
    const tensor_t *weights = op_input(op, 1);
    const tensor_t *output = op_output(op);
    conv_params_t *params = op->params;

    params->in_zero_point = tensor_zero_point(input);
    params->out_zero_point = tensor_zero_point(output);
    params->range = activation_range(activation, output);

    const uint32_t factors = tensor_scale_count(weights);
    params->factor_step = factors > 1 ? 1 : 0;
    params->factors = persistent_alloc(factors * sizeof(multiplier_t));
    if (params->factors == NULL) {
        return out_of_arena;
    }
    for (uint32_t i = 0; i < factors; i++) {
        const double product = (double)tensor_scale(input) * (double)tensor_scale_at(weights, i);
        params->factors[i] = quantize_multiplier(product / (double)tensor_scale(output));
    }
    return NULL;
}
