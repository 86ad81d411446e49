/*
 * softmax.h: the division of softmax, bit for bit as TFLM's fixed-point kernel does it (gemmlowp's formats: Qm.n has m integer
 * bits, n = 31 - m). The exponentials come from a table that the generator made.
 */
#ifndef SOFTMAX_H
#define SOFTMAX_H

#include <stdint.h>

#include "requantize.h"

/* value * 4, saturated */
static inline int32_t saturating_times_4(int32_t value)
{
    return clamp(value, INT32_MIN / 4, INT32_MAX / 4) == value ? value * 4 : value < 0 ? INT32_MIN : INT32_MAX;
}

/* 1 / (1 + fraction) in Q0.31, for a fraction in 0..1 in Q0.31: three Newton-Raphson steps for 1 / half_denominator. */
static inline int32_t one_over_one_plus(int32_t fraction)
{
    enum { FORTY_EIGHT_17THS = 1515870810, MINUS_THIRTY_TWO_17THS = -1010580540, ONE = 1 << 29 }; /* Q2.29 */
    int32_t half_denominator = (int32_t)(((int64_t)fraction + INT32_MAX + 1) >> 1);
    int32_t x = FORTY_EIGHT_17THS + doubling_high_multiply(half_denominator, MINUS_THIRTY_TWO_17THS);

    for (int32_t step = 0; step < 3; step++) {
        int32_t correction = ONE - doubling_high_multiply(half_denominator, x);

        x += saturating_times_4(doubling_high_multiply(x, correction));
    }
    return x > INT32_MAX / 2 ? INT32_MAX : x * 2;
}

/*
 * One row.
 * exponentials: exp(-d * scale * beta) in Q0.31 for d = highest - in[i] below `cutoff`; beyond, the result is 0 (-128).
 */
static inline void softmax_row(const int8_t *in, int8_t *out, int32_t count, const int32_t *exponentials, int32_t cutoff)
{
    int32_t highest = -128;
    uint32_t total = 0; /* Q12.19 */

#pragma GCC unroll 1
    for (int32_t i = 0; i < count; i++) {
        highest = in[i] > highest ? in[i] : highest;
    }
#pragma GCC unroll 1
    for (int32_t i = 0; i < count; i++) {
        int32_t difference = highest - in[i];

        total += difference < cutoff ? (uint32_t)rounding_shift_right(exponentials[difference], 12) : 0;
    }

    /* total = (1 + fraction) * 2^(12 - headroom) */
    int32_t headroom = __builtin_clz(total);
    int32_t fraction = (int32_t)((total << headroom) & INT32_MAX);
    int32_t reciprocal = one_over_one_plus(fraction);
    int32_t exponent = 12 - headroom + 31 - 8;

#pragma GCC unroll 1
    for (int32_t i = 0; i < count; i++) {
        int32_t difference = highest - in[i];
        int32_t share = 0;

        if (difference < cutoff && exponent < 32) {
            share = rounding_shift_right(doubling_high_multiply(reciprocal, exponentials[difference]), exponent);
        }
        out[i] = clamp_s8(share - 128, -128, 127);
    }
}

#endif
