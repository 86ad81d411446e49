/*
 * requantize.h: from 32-bit sums to int8, bit for bit as TFLM's reference kernels do it with double rounding.
 *
 * A real factor is multiplier * 2^(shift - 31) with multiplier in 2^30..2^31-1 (or 0). First rounding: the doubling high
 * multiply, half up. Second rounding: the right shift, half away from zero. Both are kept; a single rounding differs by one
 * now and then.
 */
#ifndef REQUANTIZE_H
#define REQUANTIZE_H

#include <stdint.h>

#include "intrinsics.h"

/* value limited to lowest..highest */
static inline int32_t clamp(int32_t value, int32_t lowest, int32_t highest)
{
    return value < lowest ? lowest : value > highest ? highest : value;
}

/* The nearest integer, halves away from zero; beyond +-1024, which saturates any 8-bit type, it stops there. NaN counts as
 * the lowest. */
static inline int32_t round_half_away(float value)
{
    value = value > -1024.0f ? value : -1024.0f;
    value = value < 1024.0f ? value : 1024.0f;

    int32_t whole = (int32_t)value;
    float fraction = value - (float)whole; /* exact, where adding 0.5 would not be */

    return whole + (fraction >= 0.5f ? 1 : 0) - (fraction <= -0.5f ? 1 : 0);
}

/* value saturated to int8, then limited to an activation's range; costs nothing more where that is all of int8. */
static inline int8_t clamp_s8(int32_t value, int32_t act_min, int32_t act_max)
{
    value = saturate_s8(value);
    if (act_min > -128 && value < act_min) {
        value = act_min;
    }
    if (act_max < 127 && value > act_max) {
        value = act_max;
    }
    return (int8_t)value;
}

/* (value * multiplier + 2^30) >> 31: the high half of the doubled product, rounded half up; any value. */
static inline int32_t doubling_high_multiply(int32_t value, int32_t multiplier)
{
    return (int32_t)(((int64_t)value * multiplier + (1 << 30)) >> 31);
}

/* value / 2^exponent, rounded half away from zero; any value, exponent 0..31. */
static inline int32_t rounding_shift_right(int32_t value, int32_t exponent)
{
    uint32_t mask = (1u << exponent) - 1u;
    uint32_t half = (mask >> 1) + (value < 0 ? 1u : 0u);

    return (value >> exponent) + (((uint32_t)value & mask) > half ? 1 : 0);
}

/* value * multiplier * 2^(shift - 31), rounded twice; value * 2^shift must fit 32 bits when shift > 0. */
static inline int32_t requantize(int32_t value, int32_t multiplier, int32_t shift)
{
    int32_t product = doubling_high_multiply((int32_t)((uint32_t)value << (shift > 0 ? shift : 0)), multiplier);

    /* Half away from zero, in two steps. The product is above INT32_MIN and below INT32_MAX. */
    return shift >= 0 ? product : (((product - (product < 0 ? 1 : 0)) >> (-shift - 1)) + 1) >> 1;
}

/* requantize of a value below 2^30 in magnitude: a few instructions when multiplier and shift are constants. Both roundings
 * in one wide addition: the first is SMMLAR's own, the second is half of the divisor; value >> 31 makes it go away from zero. */
static inline int32_t requantize_small(int32_t value, int32_t multiplier, int32_t shift)
{
    if (shift > 0) {
        return requantize(value, multiplier, shift);
    }
    if (shift == 0) {
        return smmlar(value * 2, multiplier, 0);
    }
    return smmlar(value * 2, multiplier, (1 << (-shift - 1)) + (value >> 31)) >> -shift;
}

/* How one channel leaves its sum, as in the model; for requantize. */
typedef struct {
    int32_t bias;
    int32_t multiplier;
    int32_t shift;
} scale_t;

/*
 * How one channel leaves its sum, prepared by the generator for folded_channel; `shift` and `places` are constants of a layer.
 *
 * bias:       of the layer, the zero points of input and output, and all that rounding needs, 2^shift times finer than the sum
 * multiplier: of the layer, so that (bias + sum * 2^shift) * multiplier / 2^(32 + places), rounded down, is the output
 *
 * The generator has proved that this is the output for each sum that the layer can have (codegen/requantization.py).
 */
typedef struct {
    int32_t bias;
    int32_t multiplier;
} folded_t;

/* The output times 2^places, for folded_clamp, of a sum without the bias. */
static inline int32_t folded_channel(int32_t sum, folded_t channel, int32_t shift)
{
    return smmul(add_wrapping(channel.bias, (int32_t)((uint32_t)sum << shift)), channel.multiplier);
}

/* As folded_channel, of 256 times a sum. */
static inline int32_t folded_high(int32_t difference, folded_t channel, int32_t shift)
{
    if (shift < 8) {
        return folded_channel(difference >> (8 - shift), channel, 0);
    }
    return folded_channel(difference, channel, shift - 8);
}

/* What folded_channel gave as int8, limited to an activation's range. */
static inline int8_t folded_clamp(int32_t value, int32_t places, int32_t act_min, int32_t act_max)
{
    return clamp_s8(value >> places, act_min, act_max);
}

/*
 * As folded_t, for outputs on both sides of the zero point, where rounding goes away from it; `round` and `exponent` are
 * constants of a layer: 2^(exponent - 1) + (output's zero point << exponent), and the right shift, 1 or more.
 *
 * bias:       of the layer, with the input's zero point folded in, doubled
 * multiplier: Q31
 */
typedef struct {
    int32_t bias;
    int32_t multiplier;
} signed_t;

/* (requantize(sum with bias, multiplier, -exponent) + output zero point) * 2^exponent, for folded_clamp, of twice a sum; the sum
 * with its bias is below 2^30 in magnitude. As requantize_small. */
static inline int32_t signed_doubled(int32_t doubled, signed_t channel, int32_t round)
{
    int32_t total = channel.bias + doubled;

    return smmlar(total, channel.multiplier, add_sign(round, total));
}

/* As signed_doubled, of a sum. */
static inline int32_t signed_channel(int32_t sum, signed_t channel, int32_t round)
{
    return signed_doubled(sum * 2, channel, round);
}

/*
 * As signed_t, where channels differ in their exponent.
 *
 * bias:       as in signed_t
 * multiplier: Q31
 * round:      2^(exponent - 1) + (output's zero point << exponent)
 * exponent:   right shift, 1 or more
 */
typedef struct {
    int32_t bias;
    int32_t multiplier;
    int32_t round;
    int32_t exponent;
} requantize_t;

/* The output without clamping, of twice a sum; the sum with its bias is below 2^30 in magnitude. */
static inline int32_t requantize_doubled(int32_t doubled, requantize_t channel)
{
    int32_t total = channel.bias + doubled;

    return smmlar(total, channel.multiplier, channel.round + (total >> 31)) >> channel.exponent;
}

/* As requantize_doubled, of a sum. */
static inline int32_t requantize_channel(int32_t sum, requantize_t channel)
{
    return requantize_doubled(sum * 2, channel);
}

/*
 * As requantize_t, for any sum and any scale (rescale_channel takes about 15 cycles more than requantize_channel).
 *
 * bias:       of the layer, with the input's zero point folded in, wrapped around as int32 does
 * multiplier: Q31
 * shift:      as in requantize
 * zero_point: of the output
 */
typedef struct {
    int32_t bias;
    int32_t multiplier;
    int32_t shift;
    int32_t zero_point;
} rescale_t;

/* requantize(bias + sum, multiplier, shift) + output zero point. What lies beyond +-1023 saturates int8 with any zero point; it
 * is cut off so that the addition cannot overflow. */
static inline int32_t rescale_channel(int32_t sum, rescale_t channel)
{
    int32_t total = add_wrapping(sum, channel.bias);

    return clamp(requantize(total, channel.multiplier, channel.shift), -1024, 1023) + channel.zero_point;
}

#endif
