/*
 * dot_s8.h: sums of products of activations and weights, several output channels and pixels at once.
 *
 * A word holds two elements of two channels a and b, in one of two layouts that the generator makes
 * (codegen/kernels/packing.py):
 *
 *   DOT_PAIRS   half-word k = 256 * b[k] + a[k]. Needs b[k] - (a[k] < 0) >= -128. SXTB16 gives (a[k], a[k + 1]); the word as
 *               it is gives 256 * sum(b * x) + sum(a * x), from which sum(b * x) follows as long as it fits 24 bits. One
 *               instruction per word instead of two.
 *   DOT_BYTES   bytes a[k], b[k], a[k + 1], b[k + 1]: SXTB16 gives those of a, SXTB16 rotated by 8 those of b. Any weights,
 *               any depth: sums wrap around as int32 does.
 *
 * In the names c0 is channel 0, p1 is pixel 1. Sums leave out the bias.
 */
#ifndef DOT_S8_H
#define DOT_S8_H

#include <stdint.h>

#include "intrinsics.h"

#define DOT_INLINE static inline __attribute__((always_inline))

/* Keeps loads of later steps behind this point: GCC would load ahead until it runs out of registers, and spill sums. */
DOT_INLINE void dot_step_end(void)
{
    __asm__ volatile("" ::: "memory");
}

typedef enum { DOT_PAIRS, DOT_BYTES } dot_layout_t; /* a constant wherever it is an argument */

/* What channel b of a word is multiplied as. */
DOT_INLINE uint32_t dot_b(uint32_t word, dot_layout_t layout)
{
    return layout == DOT_BYTES ? sxtb16_ror8(word) : word;
}

/* sum(b * x) from the packed sum 256 * sum(b * x) + sum(a * x); the difference may have wrapped around. */
DOT_INLINE int32_t dot_high(int32_t packed, int32_t low)
{
    return (int32_t)((uint32_t)packed - (uint32_t)low) >> 8;
}

/* sum(b * x) from what was summed up with dot_b, and sum(a * x). */
DOT_INLINE int32_t dot_b_sum(int32_t sum, int32_t sum_a, dot_layout_t layout)
{
    return layout == DOT_BYTES ? sum : dot_high(sum, sum_a);
}

/* Four channels, two pixels. */
typedef struct {
    int32_t c0p0, c0p1, c1p0, c1p1, c2p0, c2p1, c3p0, c3p1;
} dot_4x2_t;

/* Two elements deep: 16 products. weights: a word for channels 0 and 1, a word for channels 2 and 3. Each word is used for its
 * second channel first and then expanded in the same register: sums, operands and two pointers just fill the register file. */
DOT_INLINE void dot_4x2_step(dot_4x2_t *sum, const uint32_t *weights, const int16_t *pixel0, const int16_t *pixel1,
                             dot_layout_t layout)
{
    uint32_t x0 = load_u32(pixel0);
    uint32_t x1 = load_u32(pixel1);
    uint32_t w01 = weights[0];
    uint32_t w23 = weights[1];
    uint32_t b = dot_b(w01, layout);

    sum->c1p0 = smlad(b, x0, sum->c1p0);
    sum->c1p1 = smlad(b, x1, sum->c1p1);
    w01 = sxtb16(w01);
    sum->c0p0 = smlad(w01, x0, sum->c0p0);
    sum->c0p1 = smlad(w01, x1, sum->c0p1);
    b = dot_b(w23, layout);
    sum->c3p0 = smlad(b, x0, sum->c3p0);
    sum->c3p1 = smlad(b, x1, sum->c3p1);
    w23 = sxtb16(w23);
    sum->c2p0 = smlad(w23, x0, sum->c2p0);
    sum->c2p1 = smlad(w23, x1, sum->c2p1);
    dot_step_end();
}

/* column: `depth` int16 of pixel 0, and `apart` elements further on as many of pixel 1; depth is even. weights: depth words. */
DOT_INLINE dot_4x2_t dot_4x2(const uint32_t *weights, const int16_t *column, int32_t apart, int32_t depth, dot_layout_t layout)
{
    dot_4x2_t sum = {0, 0, 0, 0, 0, 0, 0, 0};
    int32_t blocks = depth / 8;

    for (; blocks > 0; blocks--) {
        dot_4x2_step(&sum, weights, column, column + apart, layout);
        dot_4x2_step(&sum, weights + 2, column + 2, column + apart + 2, layout);
        dot_4x2_step(&sum, weights + 4, column + 4, column + apart + 4, layout);
        dot_4x2_step(&sum, weights + 6, column + 6, column + apart + 6, layout);
        weights += 8;
        column += 8;
    }
#pragma GCC unroll 3
    for (int32_t k = 0; k < depth % 8; k += 2) {
        dot_4x2_step(&sum, weights + k, column + k, column + apart + k, layout);
    }
    sum.c1p0 = dot_b_sum(sum.c1p0, sum.c0p0, layout);
    sum.c1p1 = dot_b_sum(sum.c1p1, sum.c0p1, layout);
    sum.c3p0 = dot_b_sum(sum.c3p0, sum.c2p0, layout);
    sum.c3p1 = dot_b_sum(sum.c3p1, sum.c2p1, layout);
    return sum;
}

/* As dot_4x2 in DOT_PAIRS, for columns whose sums may need more than 24 bits, which those of `segment` elements do not. */
DOT_INLINE dot_4x2_t dot_4x2_segments(const uint32_t *weights, const int16_t *column, int32_t apart, int32_t depth,
                                      int32_t segment)
{
    dot_4x2_t sum = {0, 0, 0, 0, 0, 0, 0, 0};

    for (int32_t start = 0; start < depth; start += segment) {
        int32_t length = depth - start < segment ? depth - start : segment;
        dot_4x2_t part = dot_4x2(weights + start, column + start, apart, length, DOT_PAIRS);

        sum.c0p0 = add_wrapping(sum.c0p0, part.c0p0);
        sum.c0p1 = add_wrapping(sum.c0p1, part.c0p1);
        sum.c1p0 = add_wrapping(sum.c1p0, part.c1p0);
        sum.c1p1 = add_wrapping(sum.c1p1, part.c1p1);
        sum.c2p0 = add_wrapping(sum.c2p0, part.c2p0);
        sum.c2p1 = add_wrapping(sum.c2p1, part.c2p1);
        sum.c3p0 = add_wrapping(sum.c3p0, part.c3p0);
        sum.c3p1 = add_wrapping(sum.c3p1, part.c3p1);
    }
    return sum;
}

/* Two channels, two pixels. */
typedef struct {
    int32_t c0p0, c0p1, c1p0, c1p1;
} dot_2x2_t;

/* As dot_4x2, for the channels that are left over. weights: depth / 2 words. */
DOT_INLINE dot_2x2_t dot_2x2(const uint32_t *weights, const int16_t *column, int32_t apart, int32_t depth, dot_layout_t layout)
{
    dot_2x2_t sum = {0, 0, 0, 0};

#pragma GCC unroll 2
    for (int32_t k = 0; k < depth; k += 2) {
        uint32_t x0 = load_u32(column + k);
        uint32_t x1 = load_u32(column + apart + k);
        uint32_t word = *weights++;
        uint32_t b = dot_b(word, layout);
        uint32_t a = sxtb16(word);

        sum.c1p0 = smlad(b, x0, sum.c1p0);
        sum.c1p1 = smlad(b, x1, sum.c1p1);
        sum.c0p0 = smlad(a, x0, sum.c0p0);
        sum.c0p1 = smlad(a, x1, sum.c0p1);
    }
    sum.c1p0 = dot_b_sum(sum.c1p0, sum.c0p0, layout);
    sum.c1p1 = dot_b_sum(sum.c1p1, sum.c0p1, layout);
    return sum;
}

/* As dot_4x2_segments, for the channels that are left over. */
DOT_INLINE dot_2x2_t dot_2x2_segments(const uint32_t *weights, const int16_t *column, int32_t apart, int32_t depth,
                                      int32_t segment)
{
    dot_2x2_t sum = {0, 0, 0, 0};

    for (int32_t start = 0; start < depth; start += segment) {
        int32_t length = depth - start < segment ? depth - start : segment;
        dot_2x2_t part = dot_2x2(weights + start / 2, column + start, apart, length, DOT_PAIRS);

        sum.c0p0 = add_wrapping(sum.c0p0, part.c0p0);
        sum.c0p1 = add_wrapping(sum.c0p1, part.c0p1);
        sum.c1p0 = add_wrapping(sum.c1p0, part.c1p0);
        sum.c1p1 = add_wrapping(sum.c1p1, part.c1p1);
    }
    return sum;
}

#endif
