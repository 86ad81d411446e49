/* op_conv2d.c: CONV_2D, s8. */
#include "ops.h"
#include "params.h"

#include <stddef.h>

static const char *prepare(op_t *op)
{
    const fb_table_t options = op_options(op);
    const tensor_t *weights = op_input(op, 1);
    conv_params_t *params = op->params;

    params->window = window_of(options);
    params->window.dilation_h = fb_i32(options, CONV_DILATION_H, 1);
    params->window.dilation_w = fb_i32(options, CONV_DILATION_W, 1);
    window_pad(&params->window, options, op_input(op, 0), op_output(op), weights->dims[1], weights->dims[2]);
    return conv_prepare(op, fb_i8(options, CONV_ACTIVATION, ACTIVATION_NONE));
}

static void eval(const op_t *op)
{
    const conv_params_t *params = op->params;
    const window_t window = params->window;
    const tensor_t *input = op_input(op, 0);   /* (n, in_h, in_w, in_c) */
    const tensor_t *weights = op_input(op, 1); /* (out_c, kh, kw, in_c) */
    const tensor_t *bias = op_input(op, 2);    /* (out_c,) */
    const tensor_t *output = op_output(op);    /* (n, out_h, out_w, out_c) */
    const int32_t in_h = input->dims[1], in_w = input->dims[2], in_c = input->dims[3];
    const int32_t kh = weights->dims[1], kw = weights->dims[2];
    const int32_t out_h = output->dims[1], out_w = output->dims[2], out_c = output->dims[3];
    const int32_t in_offset = -params->in_zero_point;
    const int8_t *in_data = (const int8_t *)input->data;
    const int8_t *weight_data = (const int8_t *)weights->data;
    const int32_t *bias_data = bias == NULL ? NULL : (const int32_t *)(const void *)bias->data;
    int8_t *out = (int8_t *)output->data;

    for (int32_t n = 0; n < output->dims[0]; n++) {
        for (int32_t out_y = 0; out_y < out_h; out_y++) {
            for (int32_t out_x = 0; out_x < out_w; out_x++) {
                for (int32_t oc = 0; oc < out_c; oc++) {
                    int32_t acc = 0;
                    for (int32_t ky = 0; ky < kh; ky++) {
                        for (int32_t kx = 0; kx < kw; kx++) {
                            const int32_t in_y = out_y * window.stride_h - window.pad_top + ky * window.dilation_h;
                            const int32_t in_x = out_x * window.stride_w - window.pad_left + kx * window.dilation_w;
                            if (in_y < 0 || in_y >= in_h || in_x < 0 || in_x >= in_w) {
                                continue; /* padding counts as the zero point */
                            }
                            const int8_t *x = &in_data[((n * in_h + in_y) * in_w + in_x) * in_c];
                            const int8_t *w = &weight_data[((oc * kh + ky) * kw + kx) * in_c];
                            for (int32_t ic = 0; ic < in_c; ic++) {
                                acc += w[ic] * (x[ic] + in_offset);
                            }
                        }
                    }
                    if (bias_data != NULL) {
                        acc += bias_data[oc];
                    }
                    acc = requantize(acc, params->factors[(uint32_t)oc * params->factor_step]) + params->out_zero_point;
                    *out++ = (int8_t)clamp_s32(acc, params->range.low, params->range.high);
                }
            }
        }
    }
}

const op_kind_t op_conv2d = {sizeof(conv_params_t), prepare, eval};
