/* op_strided_slice.c: STRIDED_SLICE of items of any size, with masks for begin, end and dropped axes. */
#include "ops.h"
#include "params.h"

#include <stddef.h>

static int32_t has_bit(int32_t mask, int32_t axis)
{
    return (mask >> axis) & 1;
}

/* An index that may count from the end or lie beyond the axis, as one that the walk can start from or stop at. */
static int32_t in_axis(int64_t index, int32_t size, int32_t stride)
{
    const int64_t lowest = stride > 0 ? 0 : -1;
    const int64_t highest = stride > 0 ? size : size - 1;
    index = index < 0 ? index + size : index;
    return (int32_t)(index < lowest ? lowest : index > highest ? highest : index);
}

static const char *prepare(op_t *op)
{
    const fb_table_t options = op_options(op);
    const int32_t begin_mask = fb_i32(options, SLICE_BEGIN_MASK, 0);
    const int32_t end_mask = fb_i32(options, SLICE_END_MASK, 0);
    const int32_t shrink_mask = fb_i32(options, SLICE_SHRINK_MASK, 0);
    const int32_t end_is_relative = fb_i8(options, SLICE_OFFSET, 0);
    const tensor_t *input = op_input(op, 0);
    slice_params_t *params = op->params;

    int32_t item_step = 1; /* items of the input per index of the axis */
    for (int32_t axis = input->rank - 1; axis >= 0; axis--) {
        const int32_t size = input->dims[axis];
        const int32_t stride = tensor_integer_at(op_input(op, 3), (uint32_t)axis);
        int32_t begin = in_axis(tensor_integer_at(op_input(op, 1), (uint32_t)axis), size, stride);
        if (has_bit(begin_mask, axis)) {
            begin = stride > 0 ? 0 : size - 1;
        }
        const int64_t end_option = tensor_integer_at(op_input(op, 2), (uint32_t)axis);
        int32_t end = in_axis(end_option + (end_is_relative ? begin : 0), size, stride);
        if (has_bit(end_mask, axis)) {
            end = stride > 0 ? size : -1;
        }
        if (has_bit(shrink_mask, axis)) {
            end = begin + 1;
        }
        const int32_t span = stride > 0 ? end - begin + stride - 1 : end - begin + stride + 1;
        params->begin += begin * item_step;
        params->count[axis] = span / stride;
        params->stride[axis] = stride * item_step;
        item_step *= size;
    }
    return NULL;
}

const op_kind_t op_strided_slice = {sizeof(slice_params_t), prepare, eval_strided_copy};
