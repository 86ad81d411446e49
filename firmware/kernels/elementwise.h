/*
 * elementwise.h: sums and products of two int8 tensors, four elements at a time.
 *
 * Activations are the halves of words, each multiplied by 256, so that SMLAW's 32-bit factor keeps 24 bits of its product.
 */
#ifndef ELEMENTWISE_H
#define ELEMENTWISE_H

#include <stdint.h>

#include "intrinsics.h"
#include "requantize.h"

/* Bytes 0 and 2 of a word as halves, times 256: (word << 8) & 0xFF00FF00. One instruction, where GCC makes two. */
static inline uint32_t even_bytes(uint32_t word)
{
#if defined(__ARM_FEATURE_DSP)
    uint32_t halves;

    __asm__("and %0, %1, %2, lsl #8" : "=r"(halves) : "r"(0xFF00FF00u), "r"(word));
    return halves;
#else
    return (word << 8) & 0xFF00FF00u;
#endif
}

/* Bytes 1 and 3 of a word as halves, times 256. */
static inline uint32_t odd_bytes(uint32_t word)
{
    return word & 0xFF00FF00u;
}

/*
 * What the generator has proved to give a layer's outputs for all pairs of inputs (codegen/kernels/elementwise.py):
 * (start + (a * factor_a >> 8) + (b * factor_b >> 8)) >> places, limited to the activation's range.
 */
typedef struct {
    int32_t factor_a;
    int32_t factor_b;
    int32_t start;
    int32_t places;
    int32_t act_min;
    int32_t act_max;
} linear_t;

static inline int8_t linear_lo(uint32_t a, uint32_t b, linear_t sum)
{
    int32_t scaled = smlawb(sum.factor_a, a, smlawb(sum.factor_b, b, sum.start));

    return clamp_s8(scaled >> sum.places, sum.act_min, sum.act_max);
}

static inline int8_t linear_hi(uint32_t a, uint32_t b, linear_t sum)
{
    int32_t scaled = smlawt(sum.factor_a, a, smlawt(sum.factor_b, b, sum.start));

    return clamp_s8(scaled >> sum.places, sum.act_min, sum.act_max);
}

/* Four elements; `out` may be `a` or `b`. */
static inline void linear_4(const int8_t *a, const int8_t *b, int8_t *out, linear_t sum)
{
    uint32_t word_a = load_u32(a);
    uint32_t word_b = load_u32(b);

    out[0] = linear_lo(even_bytes(word_a), even_bytes(word_b), sum);
    out[1] = linear_lo(odd_bytes(word_a), odd_bytes(word_b), sum);
    out[2] = linear_hi(even_bytes(word_a), even_bytes(word_b), sum);
    out[3] = linear_hi(odd_bytes(word_a), odd_bytes(word_b), sum);
}

/* One element. */
static inline int8_t linear_1(int32_t a, int32_t b, linear_t sum)
{
    return linear_lo((uint32_t)a << 8, (uint32_t)b << 8, sum);
}

#endif
