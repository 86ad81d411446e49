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

#if defined(__ARM_FEATURE_DSP)

/* linear_4 of word_a and word_b, without limits; then these are the words four bytes on, and a, b and out point there. */
#define LINEAR_4                                              \
    "and %[even_a], %[mask], %[word_a], lsl #8\n\t"           \
    "and %[word_a], %[word_a], %[mask]\n\t"                   \
    "smlawb %[sum], %[factor_a], %[even_a], %[start]\n\t"     \
    "and %[even_b], %[mask], %[word_b], lsl #8\n\t"           \
    "smlawb %[odd], %[factor_a], %[word_a], %[start]\n\t"     \
    "and %[word_b], %[word_b], %[mask]\n\t"                   \
    "smlawt %[even_a], %[factor_a], %[even_a], %[start]\n\t"  \
    "smlawb %[sum], %[factor_b], %[even_b], %[sum]\n\t"       \
    "smlawt %[word_a], %[factor_a], %[word_a], %[start]\n\t"  \
    "smlawb %[odd], %[factor_b], %[word_b], %[odd]\n\t"       \
    "smlawt %[even_a], %[factor_b], %[even_b], %[even_a]\n\t" \
    "smlawt %[even_b], %[factor_b], %[word_b], %[word_a]\n\t" \
    "ldr %[word_a], [%[a], #4]!\n\t"                          \
    "ldr %[word_b], [%[b], #4]!\n\t"                          \
    "ssat %[sum], #8, %[sum], asr %[places]\n\t"              \
    "strb %[sum], [%[out]], #4\n\t"                           \
    "ssat %[odd], #8, %[odd], asr %[places]\n\t"              \
    "strb %[odd], [%[out], #-3]\n\t"                          \
    "ssat %[even_a], #8, %[even_a], asr %[places]\n\t"        \
    "strb %[even_a], [%[out], #-2]\n\t"                       \
    "ssat %[even_b], #8, %[even_b], asr %[places]\n\t"        \
    "strb %[even_b], [%[out], #-1]\n\t"

#endif

/*
 * linear_4 for `words` times four elements; sum's fields are constants.
 *
 * In assembly the next words are loaded before results are saturated, and a sum's products do not follow one another: so
 * nothing is waited for, and on a Cortex-M7 most instructions issue in pairs. The last words are left over, since none follow them.
 */
static inline __attribute__((always_inline)) void linear_words(const int8_t *a, const int8_t *b, int8_t *out, int32_t words,
                                                               linear_t sum)
{
#if defined(__ARM_FEATURE_DSP)
    int32_t pairs = sum.act_min == -128 && sum.act_max == 127 ? (words - 1) / 2 : 0;

    if (pairs > 0) {
        const int8_t *end = out + 8 * pairs;
        uint32_t word_a = load_u32(a);
        uint32_t word_b = load_u32(b);
        uint32_t even_a, even_b;
        int32_t first, second;

        __asm__(".p2align 2\n"
                "1:\n\t"
                LINEAR_4
                LINEAR_4
                "cmp %[out], %[end]\n\t"
                "bne 1b"
                : [a] "+r"(a), [b] "+r"(b), [out] "+r"(out), [word_a] "+r"(word_a), [word_b] "+r"(word_b),
                  [even_a] "=&r"(even_a), [even_b] "=&r"(even_b), [sum] "=&r"(first), [odd] "=&r"(second)
                : [factor_a] "r"(sum.factor_a), [factor_b] "r"(sum.factor_b), [start] "r"(sum.start), [mask] "r"(0xFF00FF00u),
                  [end] "r"(end), [places] "I"(sum.places)
                : "cc", "memory");
        words -= 2 * pairs;
    }
#endif
    for (; words > 0; words--) {
        linear_4(a, b, out, sum);
        a += 4;
        b += 4;
        out += 4;
    }
}

#endif
