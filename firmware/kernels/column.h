/*
 * column.h: int8 activations expanded to the int16 columns that dot_s8.h multiplies.
 *
 * The columns of two pixels take turns: two elements of pixel 0, two elements of pixel 1, and so on.
 *
 * Order of elements inside a column: each run of bytes that the caller copies is taken in groups of four, and a group
 * x0 x1 x2 x3 is stored as x0 x2 x1 x3, because that is what SXTB16 gives without further work. The groups of all runs come
 * first. What is left of the runs (one to three elements of each) follows in its order. The generator packs the weights in the
 * same order (codegen/kernels/packing.py).
 */
#ifndef COLUMN_H
#define COLUMN_H

#include <stddef.h>
#include <stdint.h>

#include "intrinsics.h"

/* Where element `element` of pixel 0 lies; that of pixel 1 lies 2 further on. */
static inline int32_t column_place(int32_t element)
{
    return element / 2 * 4 + element % 2;
}

/* Expands the `count` bytes of two pixels: the whole columns, or a run of which groups and rest go where they are told. */
static inline __attribute__((always_inline)) void column_copy_two(int16_t *groups, int16_t *columns, int32_t rest,
                                                                  const int8_t *pixel0, const int8_t *pixel1, int32_t count)
{
    int32_t i = 0;

#pragma GCC unroll 2
    for (; i + 4 <= count; i += 4) {
        uint32_t bytes0 = load_u32(&pixel0[i]);
        uint32_t bytes1 = load_u32(&pixel1[i]);

        store_u32(&groups[2 * i], sxtb16(bytes0));
        store_u32(&groups[2 * i + 2], sxtb16(bytes1));
        store_u32(&groups[2 * i + 4], sxtb16_ror8(bytes0));
        store_u32(&groups[2 * i + 6], sxtb16_ror8(bytes1));
    }
    for (; i < count; i++) {
        columns[column_place(rest)] = pixel0[i];
        columns[column_place(rest) + 2] = pixel1[i];
        rest++;
    }
}

/* A row of the image between `left` and `right` bytes of the input's zero point; without an image (NULL) all of it is that. */
static inline void band_row(int8_t *to, const int8_t *from, int32_t left, int32_t count, int32_t right, int32_t zero_point)
{
    int32_t i = 0;

    if (from == NULL) {
        left += count;
        count = 0;
    }
    for (; left > 0; left--) {
        *to++ = (int8_t)zero_point;
    }
    for (; i + 16 <= count; i += 16) {
        memcpy(&to[i], &from[i], 16);
    }
    for (; i < count; i++) {
        to[i] = from[i];
    }
    for (; right > 0; right--) {
        to[i++] = (int8_t)zero_point;
    }
}

#endif
