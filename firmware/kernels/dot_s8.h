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

#ifndef CORE_CORTEX_M7
#define CORE_CORTEX_M7 0
#endif

#define DOT_INLINE static inline __attribute__((always_inline))

/* One STRB: GCC would put bytes together into words, which takes more instructions than the stores. */
DOT_INLINE void store_s8(volatile int8_t *to, int8_t value)
{
    *to = value;
}

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

/* 256 * sum(b * x) from the packed sum 256 * sum(b * x) + sum(a * x), and sum(a * x). */
DOT_INLINE int32_t dot_difference(int32_t packed, int32_t low)
{
    return (int32_t)((uint32_t)packed - (uint32_t)low);
}

/* Four channels, two pixels. In DOT_PAIRS those of channels 1 and 3 are packed: for dot_difference. */
typedef struct {
    int32_t c0p0, c0p1, c1p0, c1p1, c2p0, c2p1, c3p0, c3p1;
} dot_4x2_t;

/* Steps of two elements in a pass of the loop of dot_4x2. */
enum { DOT_4X2_UNROLLED = 8 };

#if defined(__ARM_FEATURE_DSP)

/* sum = w.lo * x.lo + w.hi * x.hi */
#define DOT_4X2_START(sum, w, x) "smuad %[" #sum "], %[" #w "], %[" #x "]\n\t"
/* sum += w.lo * x.lo + w.hi * x.hi */
#define DOT_4X2_ADD(sum, w, x) "smlad %[" #sum "], %[" #w "], %[" #x "], %[" #sum "]\n\t"
/* w = its bytes 0 and 2 */
#define DOT_4X2_EXPAND(w) "sxtb16 %[" #w "], %[" #w "]\n\t"
/* word = *from++ */
#define DOT_4X2_LOAD(word, from) "ldr %[" #word "], [%[" #from "]], #4\n\t"
/* word0 = from[0], word1 = from[1], from += 2; an address that was just updated would keep loads from overlapping */
#define DOT_4X2_LOAD_TWO(word0, word1, from)                                                                                 \
    "ldr.w %[" #word1 "], [%[" #from "], #4]\n\tldr %[" #word0 "], [%[" #from "]], #8\n\t"

#if CORE_CORTEX_M7

/* 8 cycles: each SMLAD issues beside one of the others, which are for two or more cycles later: w01, x0 and x1 for the next
 * step. */
#define DOT_4X2_STEP(MULTIPLY)                                                                                               \
    MULTIPLY(c1p0, w01, x0)                                                                                                  \
    DOT_4X2_LOAD(w23, weights)                                                                                               \
    MULTIPLY(c1p1, w01, x1)                                                                                                  \
    DOT_4X2_EXPAND(w01)                                                                                                      \
    MULTIPLY(c3p0, w23, x0)                                                                                                  \
    MULTIPLY(c3p1, w23, x1)                                                                                                  \
    DOT_4X2_EXPAND(w23)                                                                                                      \
    MULTIPLY(c0p0, w01, x0)                                                                                                  \
    MULTIPLY(c0p1, w01, x1)                                                                                                  \
    DOT_4X2_LOAD(w01, weights)                                                                                               \
    MULTIPLY(c2p0, w23, x0)                                                                                                  \
    DOT_4X2_LOAD(x0, columns)                                                                                                \
    MULTIPLY(c2p1, w23, x1)                                                                                                  \
    DOT_4X2_LOAD(x1, columns)
#define DOT_4X2_BEFORE DOT_4X2_LOAD(w01, weights) DOT_4X2_LOAD(x0, columns) DOT_4X2_LOAD(x1, columns)
#define DOT_4X2_AHEAD_WEIGHTS 1 /* words that have been loaded for the step behind the last one */
#define DOT_4X2_AHEAD_COLUMNS 2

#else

/* 15 cycles, 16 where weights and columns are in different memories: loads in a row overlap. */
#define DOT_4X2_STEP(MULTIPLY)                                                                                               \
    DOT_4X2_LOAD_TWO(w01, w23, weights)                                                                                      \
    DOT_4X2_LOAD_TWO(x0, x1, columns)                                                                                        \
    MULTIPLY(c1p0, w01, x0)                                                                                                  \
    MULTIPLY(c1p1, w01, x1)                                                                                                  \
    DOT_4X2_EXPAND(w01)                                                                                                      \
    MULTIPLY(c3p0, w23, x0)                                                                                                  \
    MULTIPLY(c3p1, w23, x1)                                                                                                  \
    DOT_4X2_EXPAND(w23)                                                                                                      \
    MULTIPLY(c0p0, w01, x0)                                                                                                  \
    MULTIPLY(c0p1, w01, x1)                                                                                                  \
    MULTIPLY(c2p0, w23, x0)                                                                                                  \
    MULTIPLY(c2p1, w23, x1)
#define DOT_4X2_BEFORE ""
#define DOT_4X2_AHEAD_WEIGHTS 0
#define DOT_4X2_AHEAD_COLUMNS 0

#endif

/* The first step sets the sums, then `ENTER` goes into the loop where as many steps are ahead as make the rest whole passes:
 * DOT_4X2_STEP_BYTES further on for each step that is left out. */
#define DOT_4X2_SUMS(ENTER)                                                                                                  \
    DOT_4X2_BEFORE DOT_4X2_STEP(DOT_4X2_START)                                                                               \
    ENTER                                                                                                                    \
    ".p2align 3\n"                                                                                                           \
    "1:\n\t"                                                                                                                 \
    DOT_4X2_STEP(DOT_4X2_ADD) DOT_4X2_STEP(DOT_4X2_ADD) DOT_4X2_STEP(DOT_4X2_ADD) DOT_4X2_STEP(DOT_4X2_ADD)                  \
    DOT_4X2_STEP(DOT_4X2_ADD) DOT_4X2_STEP(DOT_4X2_ADD) DOT_4X2_STEP(DOT_4X2_ADD) DOT_4X2_STEP(DOT_4X2_ADD)                  \
    "vmov %[w23], %[end]\n\t"                                                                                                \
    "cmp.w %[weights], %[w23]\n\t"                                                                                           \
    "bne.w 1b\n\t"

enum { DOT_4X2_STEP_BYTES = 56 };

/* As dot_4x2 in DOT_PAIRS: the sums fill the registers, so that nothing may be left to the compiler. */
DOT_INLINE dot_4x2_t dot_4x2_pairs(const uint32_t **weights, const int16_t **columns, int32_t depth, int32_t rest)
{
    dot_4x2_t sum;
    uint32_t w01, w23, x0, x1;
    const uint32_t *end = *weights + depth + DOT_4X2_AHEAD_WEIGHTS;

    __asm__ volatile(
        DOT_4X2_SUMS("b.w 1f + %c[entry]\n\t")
        : [weights] "+r"(*weights), [columns] "+r"(*columns), [w01] "=&r"(w01), [w23] "=&r"(w23), [x0] "=&r"(x0),
          [x1] "=&r"(x1), [c0p0] "=&r"(sum.c0p0), [c0p1] "=&r"(sum.c0p1), [c1p0] "=&r"(sum.c1p0), [c1p1] "=&r"(sum.c1p1),
          [c2p0] "=&r"(sum.c2p0), [c2p1] "=&r"(sum.c2p1), [c3p0] "=&r"(sum.c3p0), [c3p1] "=&r"(sum.c3p1)
        : [end] "t"(end), [entry] "i"(DOT_4X2_STEP_BYTES * (DOT_4X2_UNROLLED - rest))
        : "cc", "memory");
    *weights -= DOT_4X2_AHEAD_WEIGHTS;
    *columns -= DOT_4X2_AHEAD_COLUMNS * 2;
    return sum;
}

#endif

/*
 * Sums of `depth` elements. weights: for each two elements a word of channels 0 and 1, then a word of channels 2 and 3.
 * columns: for each two elements a word of pixel 0, then a word of pixel 1. Both pointers move behind what was used. Words
 * behind that are read, too: one of the weights, two of the columns. rest: (depth / 2 - 1) % DOT_4X2_UNROLLED.
 */
DOT_INLINE dot_4x2_t dot_4x2(const uint32_t **weights, const int16_t **columns, int32_t depth, int32_t rest,
                             dot_layout_t layout)
{
#if defined(__ARM_FEATURE_DSP)
    if (layout == DOT_PAIRS) {
        return dot_4x2_pairs(weights, columns, depth, rest);
    }
#endif
    dot_4x2_t sum = {0, 0, 0, 0, 0, 0, 0, 0};
    const uint32_t *weight = *weights;
    const int16_t *column = *columns;

    (void)rest;
    for (int32_t k = 0; k < depth; k += 2) {
        uint32_t x0 = load_u32(column);
        uint32_t x1 = load_u32(column + 2);
        uint32_t w01 = weight[0];
        uint32_t w23 = weight[1];
        uint32_t b = dot_b(w01, layout);

        sum.c1p0 = smlad(b, x0, sum.c1p0);
        sum.c1p1 = smlad(b, x1, sum.c1p1);
        w01 = sxtb16(w01);
        sum.c0p0 = smlad(w01, x0, sum.c0p0);
        sum.c0p1 = smlad(w01, x1, sum.c0p1);
        b = dot_b(w23, layout);
        sum.c3p0 = smlad(b, x0, sum.c3p0);
        sum.c3p1 = smlad(b, x1, sum.c3p1);
        w23 = sxtb16(w23);
        sum.c2p0 = smlad(w23, x0, sum.c2p0);
        sum.c2p1 = smlad(w23, x1, sum.c2p1);
        dot_step_end();
        weight += 2;
        column += 4;
    }
    *weights = weight;
    *columns = column;
    return sum;
}

/* Two channels, two pixels. */
typedef struct {
    int32_t c0p0, c0p1, c1p0, c1p1;
} dot_2x2_t;

/* As dot_4x2, for the channels that are left over. weights: a word for each two elements. */
DOT_INLINE dot_2x2_t dot_2x2(const uint32_t **weights, const int16_t **columns, int32_t depth, dot_layout_t layout)
{
    dot_2x2_t sum = {0, 0, 0, 0};
    const uint32_t *weight = *weights;
    const int16_t *column = *columns;

#pragma GCC unroll 4
    for (int32_t k = 0; k < depth; k += 2) {
        uint32_t word = *weight++;
        uint32_t x0 = load_u32(column);
        uint32_t x1 = load_u32(column + 2);
        uint32_t b = dot_b(word, layout);
        uint32_t a = sxtb16(word);

        sum.c1p0 = smlad(b, x0, sum.c1p0);
        sum.c1p1 = smlad(b, x1, sum.c1p1);
        sum.c0p0 = smlad(a, x0, sum.c0p0);
        sum.c0p1 = smlad(a, x1, sum.c0p1);
        column += 4;
    }
    *weights = weight;
    *columns = column;
    return sum;
}

#endif
