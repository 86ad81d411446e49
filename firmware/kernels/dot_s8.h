/*
 * dot_s8.h: sums of products of activations and weights, several output channels and pixels at once.
 *
 * Weights of two channels a and b are packed by the generator so that a word costs one instruction instead of two:
 *
 *   half-word k of a word = 256 * b[k] + a[k]      (needs b[k] - (a[k] < 0) >= -128)
 *
 * SXTB16 of the word gives (a[k], a[k + 1]); the word itself, used as it is, gives 256 * sum(b * x) + sum(a * x), from which
 * sum(b * x) follows exactly as long as it fits 24 bits. The generator checks both conditions (codegen/kernels/packing.py).
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

/* sum(b * x) from the packed sum 256 * sum(b * x) + sum(a * x); the difference may have wrapped around. */
DOT_INLINE int32_t dot_high(int32_t packed, int32_t low)
{
    return (int32_t)((uint32_t)packed - (uint32_t)low) >> 8;
}

/* Four channels, two pixels. */
typedef struct {
    int32_t c0p0, c0p1, c1p0, c1p1, c2p0, c2p1, c3p0, c3p1;
} dot_4x2_t;

/* Two elements deep: 16 products. weights: a word for channels 0 and 1, a word for channels 2 and 3. Each word is used packed
 * first and then expanded in the same register: sums, operands and two pointers just fill the register file. */
DOT_INLINE void dot_4x2_step(dot_4x2_t *sum, const uint32_t *weights, const int16_t *pixel0, const int16_t *pixel1)
{
    uint32_t x0 = load_u32(pixel0);
    uint32_t x1 = load_u32(pixel1);
    uint32_t w01 = weights[0];
    uint32_t w23 = weights[1];

    sum->c1p0 = smlad(w01, x0, sum->c1p0);
    sum->c1p1 = smlad(w01, x1, sum->c1p1);
    w01 = sxtb16(w01);
    sum->c0p0 = smlad(w01, x0, sum->c0p0);
    sum->c0p1 = smlad(w01, x1, sum->c0p1);
    sum->c3p0 = smlad(w23, x0, sum->c3p0);
    sum->c3p1 = smlad(w23, x1, sum->c3p1);
    w23 = sxtb16(w23);
    sum->c2p0 = smlad(w23, x0, sum->c2p0);
    sum->c2p1 = smlad(w23, x1, sum->c2p1);
    dot_step_end();
}

/* column: `depth` int16 of pixel 0, then as many of pixel 1; depth is even. weights: depth words. */
DOT_INLINE dot_4x2_t dot_4x2(const uint32_t *weights, const int16_t *column, int32_t depth)
{
    dot_4x2_t sum = {0, 0, 0, 0, 0, 0, 0, 0};
    int32_t blocks = depth / 8;

    for (; blocks > 0; blocks--) {
        dot_4x2_step(&sum, weights, column, column + depth);
        dot_4x2_step(&sum, weights + 2, column + 2, column + depth + 2);
        dot_4x2_step(&sum, weights + 4, column + 4, column + depth + 4);
        dot_4x2_step(&sum, weights + 6, column + 6, column + depth + 6);
        weights += 8;
        column += 8;
    }
#pragma GCC unroll 3
    for (int32_t k = 0; k < depth % 8; k += 2) {
        dot_4x2_step(&sum, weights + k, column + k, column + depth + k);
    }
    sum.c1p0 = dot_high(sum.c1p0, sum.c0p0);
    sum.c1p1 = dot_high(sum.c1p1, sum.c0p1);
    sum.c3p0 = dot_high(sum.c3p0, sum.c2p0);
    sum.c3p1 = dot_high(sum.c3p1, sum.c2p1);
    return sum;
}

/* Two channels, two pixels. */
typedef struct {
    int32_t c0p0, c0p1, c1p0, c1p1;
} dot_2x2_t;

/* As dot_4x2, for the channels that are left over. weights: depth / 2 words. */
DOT_INLINE dot_2x2_t dot_2x2(const uint32_t *weights, const int16_t *column, int32_t depth)
{
    dot_2x2_t sum = {0, 0, 0, 0};

#pragma GCC unroll 2
    for (int32_t k = 0; k < depth; k += 2) {
        uint32_t x0 = load_u32(column + k);
        uint32_t x1 = load_u32(column + depth + k);
        uint32_t w1 = *weights++;
        uint32_t w0 = sxtb16(w1);

        sum.c1p0 = smlad(w1, x0, sum.c1p0);
        sum.c1p1 = smlad(w1, x1, sum.c1p1);
        sum.c0p0 = smlad(w0, x0, sum.c0p0);
        sum.c0p1 = smlad(w0, x1, sum.c0p1);
    }
    sum.c1p0 = dot_high(sum.c1p0, sum.c0p0);
    sum.c1p1 = dot_high(sum.c1p1, sum.c0p1);
    return sum;
}

/* Eight channels, one pixel. */
typedef struct {
    int32_t c[8];
} dot_8x1_t;

/* Four elements deep, activations as int8: 32 products. weights: per pair of channels a word for x0 and x2, a word for x1
 * and x3. */
DOT_INLINE void dot_8x1_step(dot_8x1_t *sum, const uint32_t *weights, uint32_t x)
{
    uint32_t even = sxtb16(x);
    uint32_t odd = sxtb16_ror8(x);

#pragma GCC unroll 4
    for (int32_t pair = 0; pair < 4; pair++) {
        uint32_t w02 = weights[2 * pair];
        uint32_t w13 = weights[2 * pair + 1];

        sum->c[2 * pair + 1] = smlad(w02, even, sum->c[2 * pair + 1]);
        sum->c[2 * pair + 1] = smlad(w13, odd, sum->c[2 * pair + 1]);
        w02 = sxtb16(w02);
        w13 = sxtb16(w13);
        sum->c[2 * pair] = smlad(w02, even, sum->c[2 * pair]);
        sum->c[2 * pair] = smlad(w13, odd, sum->c[2 * pair]);
        dot_step_end();
    }
}

/* Two channels, one pixel. */
typedef struct {
    int32_t c[2];
} dot_2x1_t;

/* As dot_8x1_step, for the channels that are left over. weights: two words. */
DOT_INLINE void dot_2x1_step(dot_2x1_t *sum, const uint32_t *weights, uint32_t x)
{
    uint32_t even = sxtb16(x);
    uint32_t odd = sxtb16_ror8(x);

    sum->c[1] = smlad(weights[0], even, sum->c[1]);
    sum->c[0] = smlad(sxtb16(weights[0]), even, sum->c[0]);
    sum->c[1] = smlad(weights[1], odd, sum->c[1]);
    sum->c[0] = smlad(sxtb16(weights[1]), odd, sum->c[0]);
}

/* The last one to three bytes of a row as the low bytes of a word; the others are 0. */
DOT_INLINE uint32_t load_tail(const int8_t *from, int32_t count)
{
    uint32_t word = 0;

    memcpy(&word, from, (uint32_t)count);
    return word;
}

#endif
