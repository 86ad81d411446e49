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

/* As column_copy_two for one pixel, of whose run only elements first..last-1 lie in the image; the others are the input's zero
 * point. `offset` (of element 0 from `in`) may be outside the tensor, the elements that are read are not. */
static inline void column_copy_padded(int16_t *groups, int16_t *columns, int32_t rest, const int8_t *in, int32_t offset,
                                      int32_t first, int32_t last, int32_t count, int32_t zero_point)
{
    /* Where element i of a group of four goes. */
    static const uint8_t place[4] = {0, 4, 1, 5};
    int32_t in_groups = count / 4 * 4;

    for (int32_t i = 0; i < count; i++) {
        int32_t element = i >= first && i < last ? in[offset + i] : zero_point;
        int16_t *to = i < in_groups ? &groups[i / 4 * 8 + place[i % 4]] : &columns[column_place(rest + i - in_groups)];

        *to = (int16_t)element;
    }
}

/* As column_copy_padded where first, last and count are multiples of 4: no group is partly in the image. */
static inline void column_copy_padded_groups(int16_t *groups, const int8_t *in, int32_t offset, int32_t first, int32_t last,
                                             int32_t count, int32_t zero_point)
{
    uint32_t two = pack_s16(zero_point, zero_point);

    for (int32_t i = 0; i < count; i += 4) {
        uint32_t even = two;
        uint32_t odd = two;

        if (i >= first && i < last) {
            uint32_t bytes = load_u32(&in[offset + i]);

            even = sxtb16(bytes);
            odd = sxtb16_ror8(bytes);
        }
        store_u32(&groups[2 * i], even);
        store_u32(&groups[2 * i + 4], odd);
    }
}

/* Copies `count` words, a multiple of 4; returns the copy. */
static inline const uint32_t *copy_words(void *to, const uint32_t *from, int32_t count)
{
    typedef struct {
        uint32_t word[4];
    } quad_t;
    quad_t *copy = to;

    for (int32_t i = 0; i < count; i += 4) {
        memcpy(&copy[i / 4], &from[i], sizeof(quad_t));
    }
    return to;
}

#endif
