/* op_softmax.c: SOFTMAX over the last axis, s8; output scale 1/256, zero point -128. */
#include "ops.h"
#include "params.h"

#include <stddef.h>

enum { DIFFERENCE_BITS = 5, SUM_BITS = 12 }; /* integer bits of the differences to the maximum, and of the sum of exps */

static const char *prepare(op_t *op)
{
    softmax_params_t *params = op->params;
    const double beta = (double)fb_f32(op_options(op), SOFTMAX_BETA, 0.0f);
    const double largest = 2147483647.0;
    double factor = beta * (double)tensor_scale(op_input(op, 0)) * (double)(1 << (31 - DIFFERENCE_BITS));
    factor = factor < largest ? factor : largest;
    params->factor = quantize_multiplier(factor);
    if (params->factor.shift < 0) {
        return bad_scales;
    }
    const int64_t range = (int64_t)((1 << DIFFERENCE_BITS) - 1) << (31 - DIFFERENCE_BITS);
    params->lowest_difference = -(int32_t)(range >> params->factor.shift);
    return NULL;
}

static void eval(const op_t *op)
{
    const softmax_params_t *params = op->params;
    const tensor_t *input = op_input(op, 0);
    const uint32_t depth = input->rank == 0 ? 1 : (uint32_t)input->dims[input->rank - 1];
    const uint32_t elements = tensor_elements(input);
    const int8_t *x = (const int8_t *)input->data;
    int8_t *out = (int8_t *)op_output(op)->data;

    for (uint32_t row = 0; row < elements; row += depth, x += depth, out += depth) {
        int32_t max = INT8_MIN;
        for (uint32_t c = 0; c < depth; c++) {
            max = x[c] > max ? x[c] : max;
        }
        int32_t sum = 0; /* Q12.19 */
        for (uint32_t c = 0; c < depth; c++) {
            if (x[c] - max >= params->lowest_difference) {
                const int32_t difference = requantize(x[c] - max, params->factor);
                sum += rounding_shift_right(exp_of_negative(difference, DIFFERENCE_BITS), SUM_BITS);
            }
        }
        /* sum = 2^bits_over_unit * (1 + fraction) */
        const int32_t leading_zeros = __builtin_clz((uint32_t)sum);
        const int32_t bits_over_unit = SUM_BITS - leading_zeros;
        const int32_t fraction = (int32_t)(((uint32_t)sum << leading_zeros) - ((uint32_t)1 << 31));
        const int32_t reciprocal = one_over_one_plus(fraction);
        for (uint32_t c = 0; c < depth; c++) {
            int32_t value = INT8_MIN;
            if (x[c] - max >= params->lowest_difference) {
                const int32_t difference = requantize(x[c] - max, params->factor);
                const int32_t quotient = doubling_high_mul(reciprocal, exp_of_negative(difference, DIFFERENCE_BITS));
                value = rounding_shift_right(quotient, bits_over_unit + 31 - 8) + INT8_MIN;
            }
            out[c] = (int8_t)clamp_s32(value, INT8_MIN, INT8_MAX);
        }
    }
}

const op_kind_t op_softmax = {sizeof(softmax_params_t), prepare, eval};
