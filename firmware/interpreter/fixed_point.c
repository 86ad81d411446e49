/*
 * fixed_point.c: what fixed_point.h does not inline.
 *
 * The fixed-point exp and the divisions are those of gemmlowp, which TFLM's kernels call: a Taylor polynomial around -1/8
 * times powers of exp(-1/4), and three Newton-Raphson steps.
 */
#include "fixed_point.h"

#include <string.h>

multiplier_t quantize_multiplier(double factor)
{
    if (factor == 0.0) {
        return (multiplier_t){0, 0};
    }
    uint64_t bits;
    memcpy(&bits, &factor, sizeof bits);
    const int32_t exponent = (int32_t)((bits >> 52) & 0x7ff);
    const uint64_t significand = (bits & 0xfffffffffffffu) | ((uint64_t)1 << 52);

    int32_t shift = exponent - 1022;                                  /* factor = 0.1xxx * 2^shift */
    int64_t q31 = (int64_t)((significand + ((uint64_t)1 << 21)) >> 22); /* 53 bits rounded to 31 */
    if (q31 == (int64_t)1 << 31) {
        q31 >>= 1;
        shift++;
    }
    if (shift < -31) {
        return (multiplier_t){0, 0};
    }
    return (multiplier_t){(int32_t)(factor < 0.0 ? -q31 : q31), shift};
}

int32_t round_to_s32(float x)
{
    if (!(x > -2147483648.0f && x < 2147483648.0f)) {
        return INT32_MIN;
    }
    /* In double the half is added without rounding. */
    const double half = x < 0.0f ? -0.5 : 0.5;
    return (int32_t)((double)x + half);
}

/* x * 2^exponent, saturating. */
static int32_t shift_left_saturating(int32_t x, int32_t exponent)
{
    const int64_t wide = (int64_t)x * ((int64_t)1 << exponent);
    return wide > INT32_MAX ? INT32_MAX : wide < INT32_MIN ? INT32_MIN : (int32_t)wide;
}

/* exp(x) in Q0.31 of -1/4 <= x < 0 in Q0.31: the Taylor polynomial of degree 4 around -1/8. */
static int32_t exp_of_quarter(int32_t x)
{
    const int32_t exp_of_minus_eighth = 1895147668;
    const int32_t third = 715827883;
    const int32_t y = x + (1 << 28);
    const int32_t y2 = doubling_high_mul(y, y);
    const int32_t y3 = doubling_high_mul(y2, y);
    const int32_t y4 = doubling_high_mul(y2, y2);
    const int32_t y4_over_4 = rounding_shift_right(y4, 2);
    const int32_t tail = rounding_shift_right(doubling_high_mul(y4_over_4 + y3, third) + y2, 1);
    return exp_of_minus_eighth + doubling_high_mul(exp_of_minus_eighth, y + tail);
}

int32_t exp_of_negative(int32_t x, int32_t integer_bits)
{
    /* exp(-2^k) in Q0.31 for k = -2 .. 4. */
    static const int32_t exp_of_power[] = {1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242};
    const int32_t fractional_bits = 31 - integer_bits;
    const int32_t quarter = 1 << (fractional_bits - 2);

    if (x == 0) {
        return INT32_MAX;
    }
    const int32_t in_quarter = (x & (quarter - 1)) - quarter;
    int32_t result = exp_of_quarter(shift_left_saturating(in_quarter, integer_bits));
    const int32_t quarters = in_quarter - x; /* a whole number of quarters, >= 0 */
    for (int32_t k = -2; k < integer_bits; k++) {
        if ((quarters & (int32_t)((uint32_t)1 << (fractional_bits + k))) != 0) {
            result = doubling_high_mul(result, exp_of_power[k + 2]);
        }
    }
    return result;
}

/* 2 / (1 + x) in Q2.29 of 0 <= x < 1 in Q0.31. */
static int32_t two_over_one_plus(int32_t x)
{
    const int32_t one_q29 = 1 << 29;
    const int32_t c48_over_17_q29 = 1515870810;
    const int32_t minus_32_over_17_q29 = -1010580540;
    const int32_t half_denominator = (int32_t)(((int64_t)x + INT32_MAX + 1) / 2);

    int32_t y = c48_over_17_q29 + doubling_high_mul(half_denominator, minus_32_over_17_q29);
    for (int32_t step = 0; step < 3; step++) {
        const int32_t residue = one_q29 - doubling_high_mul(half_denominator, y);
        y += shift_left_saturating(doubling_high_mul(y, residue), 2);
    }
    return y;
}

int32_t one_over_one_plus(int32_t x)
{
    return shift_left_saturating(two_over_one_plus(x), 1);
}

int32_t one_minus_over_one_plus(int32_t x)
{
    return shift_left_saturating(two_over_one_plus(x) - (1 << 29), 2);
}
