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

/* Four elements of one pixel. */
static inline __attribute__((always_inline)) void column_group(int16_t *groups, uint32_t bytes)
{
    store_u32(&groups[0], sxtb16(bytes));
    store_u32(&groups[4], sxtb16_ror8(bytes));
}

/* Expands eight elements of two pixels; all pointers move on. */
static inline __attribute__((always_inline)) void column_two_groups(int16_t **groups, const int8_t **pixel0,
                                                                    const int8_t **pixel1)
{
#if defined(__ARM_FEATURE_DSP)
    uint32_t first0, second0, first1, second1, even;

    /* As below, with the loads in a row and each word expanded in place; GCC would keep a register for every address. */
    __asm__ volatile(
        "ldr.w %[second0], [%[pixel0], #4]\n\t"
        "ldr %[first0], [%[pixel0]], #8\n\t"
        "ldr.w %[second1], [%[pixel1], #4]\n\t"
        "ldr %[first1], [%[pixel1]], #8\n\t"
        "sxtb16 %[even], %[first0]\n\t"
        "str.w %[even], [%[groups]], #32\n\t"
        "sxtb16 %[first0], %[first0], ror #8\n\t"
        "str.w %[first0], [%[groups], #-24]\n\t"
        "sxtb16 %[even], %[first1]\n\t"
        "str.w %[even], [%[groups], #-28]\n\t"
        "sxtb16 %[first1], %[first1], ror #8\n\t"
        "str.w %[first1], [%[groups], #-20]\n\t"
        "sxtb16 %[even], %[second0]\n\t"
        "str.w %[even], [%[groups], #-16]\n\t"
        "sxtb16 %[second0], %[second0], ror #8\n\t"
        "str.w %[second0], [%[groups], #-8]\n\t"
        "sxtb16 %[even], %[second1]\n\t"
        "str.w %[even], [%[groups], #-12]\n\t"
        "sxtb16 %[second1], %[second1], ror #8\n\t"
        "str.w %[second1], [%[groups], #-4]\n"
        : [groups] "+r"(*groups), [pixel0] "+r"(*pixel0), [pixel1] "+r"(*pixel1), [first0] "=&r"(first0),
          [second0] "=&r"(second0), [first1] "=&r"(first1), [second1] "=&r"(second1), [even] "=&r"(even)
        :
        : "memory");
#else
    for (int32_t i = 0; i < 2; i++) {
        column_group(*groups, load_u32(*pixel0));
        column_group(*groups + 2, load_u32(*pixel1));
        *groups += 8;
        *pixel0 += 4;
        *pixel1 += 4;
    }
#endif
}

/* Expands `count` bytes of two pixels, a multiple of 4; returns where the next groups go. */
static inline __attribute__((always_inline)) int16_t *column_groups(int16_t *groups, const int8_t *pixel0,
                                                                    const int8_t *pixel1, int32_t count)
{
    const int8_t *end = pixel0 + (count & ~7);

    while (pixel0 != end) {
        if (__builtin_constant_p(count) && count < 32) { /* no loop: constant addresses are better */
            uint32_t first0 = load_u32(pixel0);
            uint32_t second0 = load_u32(pixel0 + 4);
            uint32_t first1 = load_u32(pixel1);
            uint32_t second1 = load_u32(pixel1 + 4);

            column_group(groups, first0);
            column_group(groups + 2, first1);
            column_group(groups + 8, second0);
            column_group(groups + 10, second1);
            pixel0 += 8;
            pixel1 += 8;
            groups += 16;
        } else {
            column_two_groups(&groups, &pixel0, &pixel1);
        }
    }
    if (count % 8 != 0) {
        column_group(groups, load_u32(pixel0));
        column_group(groups + 2, load_u32(pixel1));
        groups += 8;
    }
    return groups;
}

/* Expands what is left of a run, as elements `rest` and following of two columns. */
static inline __attribute__((always_inline)) void column_rest(int16_t *columns, int32_t rest, const int8_t *pixel0,
                                                              const int8_t *pixel1, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        columns[column_place(rest + i)] = pixel0[i];
        columns[column_place(rest + i) + 2] = pixel1[i];
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
