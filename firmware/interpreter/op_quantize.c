/* op_quantize.c: QUANTIZE (float32, s8, u8 or s16 to s8 or u8) and DEQUANTIZE (s8 or u8 to float32). */
#include "ops.h"
#include "params.h"

#include <stddef.h>

static const char *prepare_quantize(op_t *op)
{
    const tensor_t *input = op_input(op, 0);
    const tensor_t *output = op_output(op);
    quantize_params_t *params = op->params;
    params->in_zero_point = tensor_zero_point(input);
    params->out_zero_point = tensor_zero_point(output);
    params->scale = tensor_scale(output);
    params->factor = quantize_multiplier((double)tensor_scale(input) / (double)tensor_scale(output));
    return NULL;
}

static int32_t integer_at(const tensor_t *tensor, uint32_t index)
{
    switch (tensor->type) {
    case TYPE_U8:
        return tensor->data[index];
    case TYPE_S16:
        return ((const int16_t *)(const void *)tensor->data)[index];
    default:
        return ((const int8_t *)tensor->data)[index];
    }
}

static void eval_quantize(const op_t *op)
{
    const quantize_params_t *params = op->params;
    const tensor_t *input = op_input(op, 0);
    const tensor_t *output = op_output(op);
    const float *reals = (const float *)(const void *)input->data;
    const int32_t low = output->type == TYPE_U8 ? 0 : INT8_MIN;
    const int32_t high = output->type == TYPE_U8 ? UINT8_MAX : INT8_MAX;
    const uint32_t elements = tensor_elements(output);
    for (uint32_t i = 0; i < elements; i++) {
        const int32_t scaled = input->type == TYPE_F32
                                   ? round_to_s32(reals[i] / params->scale)
                                   : requantize(integer_at(input, i) - params->in_zero_point, params->factor);
        /* Unsigned: what a float overflows to may wrap around, as it does in TFLM. */
        const int32_t value = (int32_t)((uint32_t)scaled + (uint32_t)params->out_zero_point);
        output->data[i] = (uint8_t)clamp_s32(value, low, high);
    }
}

static const char *prepare_dequantize(op_t *op)
{
    dequantize_params_t *params = op->params;
    params->scale = tensor_scale(op_input(op, 0));
    params->zero_point = tensor_zero_point(op_input(op, 0));
    return NULL;
}

static void eval_dequantize(const op_t *op)
{
    const dequantize_params_t *params = op->params;
    const tensor_t *input = op_input(op, 0);
    float *out = (float *)(void *)op_output(op)->data;
    const uint32_t elements = tensor_elements(input);
    for (uint32_t i = 0; i < elements; i++) {
        /* TFLM multiplies in double and rounds once; so does this: the difference is exact in float. */
        out[i] = params->scale * (float)(integer_at(input, i) - params->zero_point);
    }
}

const op_kind_t op_quantize = {sizeof(quantize_params_t), prepare_quantize, eval_quantize};
const op_kind_t op_dequantize = {sizeof(dequantize_params_t), prepare_dequantize, eval_dequantize};
