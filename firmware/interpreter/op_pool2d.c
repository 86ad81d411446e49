/* op_pool2d.c: AVERAGE_POOL_2D and MAX_POOL_2D, s8. Elements in the padding do not count. */
#include "ops.h"
#include "params.h"

#include <stddef.h>

typedef int32_t (*pool_fn)(const int8_t *x, int32_t rows, int32_t columns, int32_t row_step, int32_t column_step);

static const char *prepare(op_t *op)
{
    const fb_table_t options = op_options(op);
    pool_params_t *params = op->params;

    params->window = window_of(options);
    params->kh = fb_i32(options, POOL_FILTER_H, 0);
    params->kw = fb_i32(options, POOL_FILTER_W, 0);
    params->range = activation_range(fb_i8(options, POOL_ACTIVATION, ACTIVATION_NONE), op_output(op));
    window_pad(&params->window, options, op_input(op, 0), op_output(op), params->kh, params->kw);
    return NULL;
}

static inline int32_t average(const int8_t *x, int32_t rows, int32_t columns, int32_t row_step, int32_t column_step)
{
    const int32_t count = rows * columns;
    int32_t sum = 0;
    for (int32_t y = 0; y < rows; y++) {
        for (int32_t i = 0; i < columns; i++) {
            sum += x[y * row_step + i * column_step];
        }
    }
    return (sum > 0 ? sum + count / 2 : sum - count / 2) / count;
}

static inline int32_t maximum(const int8_t *x, int32_t rows, int32_t columns, int32_t row_step, int32_t column_step)
{
    int32_t max = INT8_MIN;
    for (int32_t y = 0; y < rows; y++) {
        for (int32_t i = 0; i < columns; i++) {
            const int32_t value = x[y * row_step + i * column_step];
            max = value > max ? value : max;
        }
    }
    return max;
}

static inline void pool(const op_t *op, pool_fn reduce)
{
    const pool_params_t *params = op->params;
    const tensor_t *input = op_input(op, 0);
    const tensor_t *output = op_output(op);
    const int32_t in_h = input->dims[1], in_w = input->dims[2], channels = input->dims[3];
    const int8_t *in_data = (const int8_t *)input->data;
    int8_t *out = (int8_t *)output->data;

    for (int32_t n = 0; n < output->dims[0]; n++) {
        for (int32_t out_y = 0; out_y < output->dims[1]; out_y++) {
            for (int32_t out_x = 0; out_x < output->dims[2]; out_x++) {
                const int32_t y = out_y * params->window.stride_h - params->window.pad_top;
                const int32_t x = out_x * params->window.stride_w - params->window.pad_left;
                const int32_t top = y < 0 ? 0 : y, left = x < 0 ? 0 : x;
                const int32_t bottom = clamp_s32(y + params->kh, top, in_h);
                const int32_t right = clamp_s32(x + params->kw, left, in_w);
                for (int32_t c = 0; c < channels; c++) {
                    const int8_t *first = &in_data[((n * in_h + top) * in_w + left) * channels + c];
                    const int32_t value = reduce(first, bottom - top, right - left, in_w * channels, channels);
                    *out++ = (int8_t)clamp_s32(value, params->range.low, params->range.high);
                }
            }
        }
    }
}

static void eval_average(const op_t *op)
{
    pool(op, average);
}

static void eval_max(const op_t *op)
{
    pool(op, maximum);
}

const op_kind_t op_average_pool2d = {sizeof(pool_params_t), prepare, eval_average};
const op_kind_t op_max_pool2d = {sizeof(pool_params_t), prepare, eval_max};
