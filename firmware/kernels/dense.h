/*
 * dense.h: sums of products of one row of activations and the weights of several outputs, each weight read once.
 *
 * Words are those of dot_s8.h. For every four elements of the row a pair of outputs has two words: elements 0 and 2, elements
 * 1 and 3, as SXTB16 picks them out of four activations. Eight outputs take turns: elements 0 and 2 of pairs 0, 1, 2, 3, then 1
 * and 3 of these pairs, then the next four elements. So the weights are one stream, read in order.
 */
#ifndef DENSE_H
#define DENSE_H

#include <stdint.h>

#include "dot_s8.h"

/* Eight outputs; in DOT_PAIRS those of outputs 1, 3, 5, 7 are packed: for dot_difference. */
typedef struct {
    int32_t c[8];
} dot_8x1_t;

/* Four elements: 32 products. */
DOT_INLINE void dot_8x1_step(dot_8x1_t *sum, const uint32_t *weights, uint32_t x, dot_layout_t layout)
{
    uint32_t even = sxtb16(x);
    uint32_t odd = sxtb16_ror8(x);

#pragma GCC unroll 4
    for (int32_t pair = 0; pair < 4; pair++) {
        uint32_t w02 = weights[pair];
        uint32_t w13 = weights[4 + pair];

        sum->c[2 * pair + 1] = smlad(dot_b(w02, layout), even, sum->c[2 * pair + 1]);
        sum->c[2 * pair + 1] = smlad(dot_b(w13, layout), odd, sum->c[2 * pair + 1]);
        w02 = sxtb16(w02);
        w13 = sxtb16(w13);
        sum->c[2 * pair] = smlad(w02, even, sum->c[2 * pair]);
        sum->c[2 * pair] = smlad(w13, odd, sum->c[2 * pair]);
        dot_step_end();
    }
}

#if defined(__ARM_FEATURE_DSP)
/*
 * dot_8x1 in DOT_PAIRS in assembly: sums, pointers and operands take all registers that there are, and GCC would spill some.
 * The end of the weights waits in a register of the FPU. a0 is the sum of output 0, b0 that of output 1, and so on.
 */
#define DENSE_OPERANDS                                                                                                        \
    [a0] "+r"(sum->c[0]), [b0] "+r"(sum->c[1]), [a1] "+r"(sum->c[2]), [b1] "+r"(sum->c[3]), [a2] "+r"(sum->c[4]),             \
        [b2] "+r"(sum->c[5]), [a3] "+r"(sum->c[6]), [b3] "+r"(sum->c[7]), [w] "+r"(weights), [in] "+r"(in), [x] "=&r"(x),     \
        [t] "=&r"(t), [u] "=&r"(u), [v] "=&r"(v)

#if CORE_CORTEX_M7
/*
 * Two instructions issue at once, of which one may be an SMLAD, and not the second one a SXTB16. A word that was loaded is
 * expanded a cycle later at the earliest and multiplied two later; an expanded one is multiplied a cycle later. One line, one
 * cycle. One half of a step: elements 0 and 2 of four or 1 and 3, whose first word is u0 bytes on; the word of pair 0 has been
 * loaded into u.
 */
#define DENSE_HALF(load_x, expand_x, u0, then)                                                                                \
    load_x "\n"                                                                                                               \
    expand_x " \n ldr %[v], [%[w], #(4 + " u0 ")] \n"                                                                         \
    "sxtb16 %[t], %[u] \n smlad %[b0], %[u], %[x], %[b0] \n"                                                                  \
    "smlad %[a0], %[t], %[x], %[a0] \n ldr %[u], [%[w], #(8 + " u0 ")] \n"                                                    \
    "sxtb16 %[t], %[v] \n smlad %[b1], %[v], %[x], %[b1] \n"                                                                  \
    "smlad %[a1], %[t], %[x], %[a1] \n ldr %[v], [%[w], #(12 + " u0 ")] \n"                                                   \
    "sxtb16 %[t], %[u] \n smlad %[b2], %[u], %[x], %[b2] \n"                                                                  \
    "smlad %[a2], %[t], %[x], %[a2] \n" then "\n"                                                                             \
    "sxtb16 %[t], %[v] \n smlad %[b3], %[v], %[x], %[b3] \n"                                                                  \
    "smlad %[a3], %[t], %[x], %[a3] \n" /* and load_x of the next half */
#define DENSE_STEP(number, then)                                                                                              \
    DENSE_HALF("ldr %[x], [%[in]]", "sxtb16 %[x], %[x]", "32 * " #number, "ldr %[u], [%[w], #(16 + 32 * " #number ")]")       \
    DENSE_HALF("ldr %[x], [%[in]], #4", "sxtb16 %[x], %[x], ror #8", "16 + 32 * " #number, then)
#define DENSE_NEXT(number) "ldr %[u], [%[w], #(32 * " #number ")]"
#define DENSE_FIRST "ldr %[u], [%[w]] \n"
#define DENSE_LAST "vmov %[u], %[end]"
#define DENSE_AGAIN(bytes) "adds %[w], %[w], #" #bytes " \n cmp %[w], %[u] \n bne 1b \n"
#else
/* One instruction at a time; LDRD takes 3 cycles, two LDR 4 unless they follow each other. */
#define DENSE_TWO_PAIRS(a, b, c, d, x)                                                                                        \
    "ldrd %[u], %[v], [%[w]], #8 \n"                                                                                          \
    "smlad %[" b "], %[u], %[" x "], %[" b "] \n"                                                                             \
    "smlad %[" d "], %[v], %[" x "], %[" d "] \n"                                                                             \
    "sxtb16 %[u], %[u] \n"                                                                                                    \
    "sxtb16 %[v], %[v] \n"                                                                                                    \
    "smlad %[" a "], %[u], %[" x "], %[" a "] \n"                                                                             \
    "smlad %[" c "], %[v], %[" x "], %[" c "] \n"
#define DENSE_STEP(number, then)                                                                                              \
    "ldr %[x], [%[in]], #4 \n"                                                                                                \
    "sxtb16 %[t], %[x] \n" DENSE_TWO_PAIRS("a0", "b0", "a1", "b1", "t") DENSE_TWO_PAIRS("a2", "b2", "a3", "b3", "t")          \
    "sxtb16 %[x], %[x], ror #8 \n" DENSE_TWO_PAIRS("a0", "b0", "a1", "b1", "x") DENSE_TWO_PAIRS("a2", "b2", "a3", "b3", "x")
#define DENSE_NEXT(number) ""
#define DENSE_FIRST ""
#define DENSE_LAST ""
#define DENSE_AGAIN(bytes) "vmov %[u], %[end] \n cmp %[w], %[u] \n bne 1b \n"
#endif

/* sum += whole words of activations times eight words of weights for each; returns where the weights end. */
DOT_INLINE const uint32_t *dot_8x1_pairs(dot_8x1_t *sum, const uint32_t *weights, const int8_t *in, int32_t words)
{
    uint32_t x, t, u, v;

    if (words >= 4) {
        const uint32_t *end = weights + 8 * (words & ~3);

        __asm__ volatile(".p2align 3 \n"
                         "1: \n" DENSE_FIRST DENSE_STEP(0, DENSE_NEXT(1)) DENSE_STEP(1, DENSE_NEXT(2))
                             DENSE_STEP(2, DENSE_NEXT(3)) DENSE_STEP(3, DENSE_LAST) DENSE_AGAIN(128)
                         : DENSE_OPERANDS
                         : [end] "t"(end)
                         : "cc", "memory");
    }
    if (words & 3) {
        const uint32_t *end = weights + 8 * (words & 3);

        __asm__ volatile("1: \n" DENSE_FIRST DENSE_STEP(0, DENSE_LAST) DENSE_AGAIN(32)
                         : DENSE_OPERANDS
                         : [end] "t"(end)
                         : "cc", "memory");
    }
    return weights;
}
#endif

/* dot_8x1_step for `words` words of activations; returns where the weights end. */
DOT_INLINE const uint32_t *dot_8x1(dot_8x1_t *sum, const uint32_t *weights, const int8_t *in, int32_t words,
                                   dot_layout_t layout)
{
#if defined(__ARM_FEATURE_DSP)
    if (layout == DOT_PAIRS) {
        return dot_8x1_pairs(sum, weights, in, words);
    }
#endif
    for (; words > 0; words--) {
        dot_8x1_step(sum, weights, load_u32(in), layout);
        weights += 8;
        in += 4;
    }
    return weights;
}

/* Two outputs. */
typedef struct {
    int32_t c[2];
} dot_2x1_t;

/* As dot_8x1_step, for the outputs that are left over. weights: two words. */
DOT_INLINE void dot_2x1_step(dot_2x1_t *sum, const uint32_t *weights, uint32_t x, dot_layout_t layout)
{
    uint32_t even = sxtb16(x);
    uint32_t odd = sxtb16_ror8(x);

    sum->c[1] = smlad(dot_b(weights[0], layout), even, sum->c[1]);
    sum->c[0] = smlad(sxtb16(weights[0]), even, sum->c[0]);
    sum->c[1] = smlad(dot_b(weights[1], layout), odd, sum->c[1]);
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
