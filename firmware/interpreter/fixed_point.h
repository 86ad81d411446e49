/*
 * fixed_point.h: the integer arithmetic of TFLM's reference kernels, double rounding.
 *
 * A real factor is kept as (multiplier, shift): factor = multiplier / 2^31 * 2^shift with 2^30 <= multiplier < 2^31.
 * Must equal codegen/fixed_point.py bit for bit.
 */
#ifndef FIXED_POINT_H
#define FIXED_POINT_H

#include <stdint.h>

typedef struct {
    int32_t multiplier;
    int32_t shift;
} multiplier_t;

/* a * b / 2^31, rounded to nearest, ties away from zero; saturates the one case that overflows. */
static inline int32_t doubling_high_mul(int32_t a, int32_t b)
{
    if (a == INT32_MIN && b == INT32_MIN) {
        return INT32_MAX;
    }
    const int64_t product = (int64_t)a * b;
    const int64_t nudge = product >= 0 ? (int64_t)1 << 30 : 1 - ((int64_t)1 << 30);
    return (int32_t)((product + nudge) / ((int64_t)1 << 31));
}

/* x / 2^exponent, rounded to nearest, ties away from zero; 0 <= exponent <= 31. */
static inline int32_t rounding_shift_right(int32_t x, int32_t exponent)
{
    const int32_t mask = (int32_t)(((uint32_t)1 << exponent) - 1);
    const int32_t remainder = x & mask;
    const int32_t threshold = (mask >> 1) + (x < 0 ? 1 : 0);
    return (x >> exponent) + (remainder > threshold ? 1 : 0);
}

/* x * factor. Rounds twice: after the multiplication and after the right shift. A left shift that overflows wraps. */
static inline int32_t requantize(int32_t x, multiplier_t factor)
{
    const int32_t left = factor.shift > 0 ? factor.shift : 0;
    const int32_t right = factor.shift > 0 ? 0 : -factor.shift;
    return rounding_shift_right(doubling_high_mul((int32_t)((uint32_t)x << left), factor.multiplier), right);
}

static inline int32_t clamp_s32(int32_t x, int32_t low, int32_t high)
{
    return x < low ? low : x > high ? high : x;
}

/* The nearest (multiplier, shift) of a finite real factor; factors below 2^-31 become 0. */
multiplier_t quantize_multiplier(double factor);

/* Nearest integer, ties away from zero. What does not fit int32_t, and NaN, gives INT32_MIN, as on the oracle's CPU. */
int32_t round_to_s32(float x);

/* exp(x) in Q0.31 of x <= 0 in Q<integer_bits>.<31 - integer_bits>; 4 <= integer_bits <= 5. */
int32_t exp_of_negative(int32_t x, int32_t integer_bits);
/* 1 / (1 + x) and (1 - x) / (1 + x) in Q0.31 of 0 <= x < 1 in Q0.31. */
int32_t one_over_one_plus(int32_t x);
int32_t one_minus_over_one_plus(int32_t x);

#endif
