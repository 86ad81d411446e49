/* op_relu.c: RELU, RELU_N1_TO_1 and RELU6 that stand alone, s8. */
#include "ops.h"
#include "params.h"

#include <stddef.h>

static const char *prepare(op_t *op, int32_t activation)
{
    const tensor_t *input = op_input(op, 0);
    const tensor_t *output = op_output(op);
    relu_params_t *params = op->params;

    params->in_zero_point = tensor_zero_point(input);
    params->out_zero_point = tensor_zero_point(output);
    params->factor = quantize_multiplier((double)tensor_scale(input) / (double)tensor_scale(output));
    params->range = activation_range(activation, output);
    return NULL;
}

static const char *prepare_relu(op_t *op)
{
    return prepare(op, ACTIVATION_RELU);
}

static const char *prepare_relu_n1_to_1(op_t *op)
{
    return prepare(op, ACTIVATION_RELU_N1_TO_1);
}

static void eval(const op_t *op)
{
    const relu_params_t *params = op->params;
    const int8_t *x = (const int8_t *)op_input(op, 0)->data;
    int8_t *out = (int8_t *)op_output(op)->data;
    const uint32_t elements = tensor_elements(op_output(op));
    for (uint32_t i = 0; i < elements; i++) {
        const int32_t value = requantize(x[i] - params->in_zero_point, params->factor) + params->out_zero_point;
        out[i] = (int8_t)clamp_s32(value, params->range.low, params->range.high);
    }
}

/* TFLM's RELU6 never rescales: it clamps the input's values, by the input's scale. */
static const char *prepare_relu6(op_t *op)
{
    relu6_params_t *params = op->params;
    params->range = activation_range(ACTIVATION_RELU6, op_input(op, 0));
    return NULL;
}

static void eval_relu6(const op_t *op)
{
    const relu6_params_t *params = op->params;
    const int8_t *x = (const int8_t *)op_input(op, 0)->data;
    int8_t *out = (int8_t *)op_output(op)->data;
    const uint32_t elements = tensor_elements(op_output(op));
    for (uint32_t i = 0; i < elements; i++) {
        out[i] = (int8_t)clamp_s32(x[i], params->range.low, params->range.high);
    }
}

const op_kind_t op_relu = {sizeof(relu_params_t), prepare_relu, eval};
const op_kind_t op_relu_n1_to_1 = {sizeof(relu_params_t), prepare_relu_n1_to_1, eval};
const op_kind_t op_relu6 = {sizeof(relu6_params_t), prepare_relu6, eval_relu6};
