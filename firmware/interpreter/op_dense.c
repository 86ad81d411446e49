/* op_dense.c: FULLY_CONNECTED, s8. */
#include "ops.h"
#include "params.h"

#include <stddef.h>

static const char *prepare(op_t *op)
{
    return conv_prepare(op, fb_i8(op_options(op), DENSE_ACTIVATION, ACTIVATION_NONE));
}

static void eval(const op_t *op)
{
    const conv_params_t *params = op->params;
    const tensor_t *weights = op_input(op, 1); /* (out_features, in_features) */
    const tensor_t *bias = op_input(op, 2);    /* (out_features,) */
    const tensor_t *output = op_output(op);
    const int32_t out_features = weights->dims[0], in_features = weights->dims[1];
    const int32_t rows = (int32_t)tensor_elements(output) / out_features;
    const int32_t in_offset = -params->in_zero_point;
    const int32_t *bias_data = bias == NULL ? NULL : (const int32_t *)(const void *)bias->data;
    const int8_t *x = (const int8_t *)op_input(op, 0)->data;
    int8_t *out = (int8_t *)output->data;

    for (int32_t row = 0; row < rows; row++, x += in_features) {
        for (int32_t oc = 0; oc < out_features; oc++) {
            const int8_t *w = &((const int8_t *)weights->data)[oc * in_features];
            int32_t acc = 0;
            for (int32_t i = 0; i < in_features; i++) {
                acc += w[i] * (x[i] + in_offset);
            }
            if (bias_data != NULL) {
                acc += bias_data[oc];
            }
            acc = requantize(acc, params->factors[(uint32_t)oc * params->factor_step]) + params->out_zero_point;
            *out++ = (int8_t)clamp_s32(acc, params->range.low, params->range.high);
        }
    }
}

const op_kind_t op_dense = {sizeof(conv_params_t), prepare, eval};
