/*
 * column.h: int8 activations expanded to the int16 column that dot_s8.h multiplies.
 *
 * Order inside a column: each run of bytes that the caller copies is taken in groups of four, and a group x0 x1 x2 x3 is
 * stored as x0 x2 x1 x3, because that is what SXTB16 gives without further work. What is left of a run (one to three
 * elements) keeps its order. The generator packs the weights in the same order (codegen/kernels/packing.py).
 */
#ifndef COLUMN_H
#define COLUMN_H

#include <stdint.h>

#include "intrinsics.h"

/* Expands `count` bytes; returns where the next run goes. */
static inline __attribute__((always_inline)) int16_t *column_copy(int16_t *column, const int8_t *from, int32_t count)
{
    int32_t i = 0;

#pragma GCC unroll 2
    for (; i + 4 <= count; i += 4) {
        uint32_t bytes = load_u32(&from[i]);

        store_u32(&column[i], sxtb16(bytes));
        store_u32(&column[i + 2], sxtb16_ror8(bytes));
    }
    for (; i < count; i++) {
        column[i] = from[i];
    }
    return column + count;
}

/* As column_copy for a run of which only elements first..last-1 lie in the image; the others are the input's zero point.
 * `offset` (of element 0 from `in`) may be outside the tensor, the elements that are read are not. */
static inline int16_t *column_copy_padded(int16_t *column, const int8_t *in, int32_t offset, int32_t first, int32_t last,
                                          int32_t count, int32_t zero_point)
{
    /* Where element i of a group of four goes. */
    static const uint8_t place[4] = {0, 2, 1, 3};
    int32_t groups = count / 4 * 4;

    for (int32_t i = 0; i < count; i++) {
        int32_t at = i < groups ? i / 4 * 4 + place[i % 4] : i;
        int32_t element = i >= first && i < last ? in[offset + i] : zero_point;

        column[at] = (int16_t)element;
    }
    return column + count;
}

/* `count` elements of the input's zero point; count is a multiple of 4. */
static inline int16_t *column_fill(int16_t *column, int32_t count, int32_t zero_point)
{
    uint32_t two = pack_s16(zero_point, zero_point);

    for (int32_t i = 0; i < count; i += 4) {
        store_u32(&column[i], two);
        store_u32(&column[i + 2], two);
    }
    return column + count;
}

/* As column_copy_padded where first, last and count are multiples of 4: no group is partly in the image. */
static inline int16_t *column_copy_padded_groups(int16_t *column, const int8_t *in, int32_t offset, int32_t first,
                                                 int32_t last, int32_t count, int32_t zero_point)
{
    if (first >= last) {
        return column_fill(column, count, zero_point);
    }
    column = column_fill(column, first, zero_point);
    column = column_copy(column, &in[offset + first], last - first);
    return column_fill(column, count - last, zero_point);
}

#endif
