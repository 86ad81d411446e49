/*
 * depthwise.h: what the functions of depthwise convolutions are made of: strips, and 3x3 kernels over them in assembly.
 */
#ifndef DEPTHWISE_H
#define DEPTHWISE_H

#include "depthwise_strips.h"

#ifndef CORE_CORTEX_M7
#define CORE_CORTEX_M7 0
#endif

#if defined(__ARM_FEATURE_DSP) && defined(__ARM_FP)
#define DEPTHWISE_ASSEMBLY 1

/*
 * Two rows and two columns of outputs at once: four sums, in a loop over pairs of columns and one over pairs of rows. All core
 * registers are sums (a b in the first row, c d in the second), weights, the bias, words of the buffer (x y z) and the pointer
 * p to them; what is needed once in a turn waits in registers of the FPU, as depthwise_strip_t says. The
 * Cortex-M4 wants loads side by side, the Cortex-M7 one beside each product and two products before its use. All instructions
 * are wide, so that each is one word of code: then none waits to be fetched.
 *
 * A column that is left over is computed with the one behind it, whose output goes to the same place, before it.
 */
/* y is where the outputs go. */
#define DEPTHWISE_START             \
    "vldmia %[a], {s0-s9}\n\t"      \
    "vmov s13, %[bias]\n\t"         \
    "vmov %[y], s0\n\t"             \
    "vmov %[a], s2\n\t"             \
    "cmp.w %[a], #0\n\t"            \
    "beq.w 4f\n\t"                  \
    ".p2align 2\n"
/* A pair of rows, or a single one, starts. */
#define DEPTHWISE_ROW(label)        \
    label ":\n\t"                   \
    "vmov s10, %[y]\n\t"            \
    "vmov.f32 s11, s5\n\t"          \
    "vmov %[a], s6\n\t"             \
    "add.w %[a], %[a], %[p]\n\t"    \
    "vmov s12, %[a]\n\t"            \
    "vmov %[a], s7\n\t"             \
    "add.w %[a], %[a], %[p]\n\t"    \
    "vmov s0, %[a]\n"
#define DEPTHWISE_CLOBBERS                                                                                              \
    "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "s12", "s13", "memory", "cc"
#define DEPTHWISE_LOAD(word, at) "ldr.w %[" #word "], [%[p], #" at "]\n\t"
#define DEPTHWISE_NEXT(word, at) "ldr.w %[" #word "], [%[p], #%c[next]+" at "]\n\t" /* a word of the next turn */
#define DEPTHWISE_TURN "add.w %[p], %[p], #%c[next]\n\t"
#define DEPTHWISE_FIRST(how, sum, word, weights) "smla" #how " %[" #sum "], %[" #word "], %[" #weights "], %[bias]\n\t"
#define DEPTHWISE_ADD(how, sum, word, weights) "smla" #how " %[" #sum "], %[" #word "], %[" #weights "], %[" #sum "]\n\t"
#define DEPTHWISE_SCALE(sum, multiplier) "smmul %[" #sum "], %[" #sum "], %[" #multiplier "]\n\t"
#define DEPTHWISE_CLAMP(sum) "ssat %[" #sum "], #8, %[" #sum "], asr #12\n\t"

/* Four outputs on the Cortex-M4; x is the multiplier before, the end of the words behind. The Cortex-M7 does this in
 * between products, with the multiplier in the register of the bias. */
#define DEPTHWISE_OUT                    \
    DEPTHWISE_SCALE(a, x)                \
    DEPTHWISE_SCALE(b, x)                \
    DEPTHWISE_SCALE(c, x)                \
    DEPTHWISE_SCALE(d, x)                \
    "vmov %[x], s11\n\t"                 \
    "vmov %[y], s10\n\t"                 \
    DEPTHWISE_CLAMP(a)                   \
    DEPTHWISE_CLAMP(b)                   \
    "strb.w %[b], [%[y], %[x]]\n\t"      \
    "strb.w %[a], [%[y]]\n\t"            \
    "vmov %[a], s4\n\t"                  \
    DEPTHWISE_CLAMP(c)                   \
    DEPTHWISE_CLAMP(d)                   \
    "add.w %[a], %[a], %[y]\n\t"         \
    "add.w %[y], %[y], %[x], lsl #1\n\t" \
    "strb.w %[d], [%[a], %[x]]\n\t"      \
    "strb.w %[c], [%[a]]\n\t"            \
    "vmov s10, %[y]\n\t"                 \
    "vmov %[x], s12\n\t"

/* Two outputs. */
#define DEPTHWISE_OUT_SINGLE             \
    DEPTHWISE_SCALE(a, x)                \
    DEPTHWISE_SCALE(b, x)                \
    "vmov %[x], s11\n\t"                 \
    "vmov %[y], s10\n\t"                 \
    DEPTHWISE_CLAMP(a)                   \
    DEPTHWISE_CLAMP(b)                   \
    "strb.w %[b], [%[y], %[x]]\n\t"      \
    "strb.w %[a], [%[y]]\n\t"            \
    "add.w %[y], %[y], %[x], lsl #1\n\t" \
    "vmov s10, %[y]\n\t"                 \
    "vmov %[x], s12\n\t"

/* Behind the loop over pairs of columns: once more for what is left over. */
#define DEPTHWISE_LEFT_OVER(loop, end) \
    "vmov %[x], s0\n\t"                \
    "cmp.w %[p], %[x]\n\t"             \
    "bhs.w " end "f\n\t"               \
    "vmov s12, %[x]\n\t"               \
    "mov.w %[x], #0\n\t"               \
    "vmov s11, %[x]\n\t"               \
    "b.w " loop "b\n"                  \
    end ":\n\t"

/* The end of the loop over pairs of rows. */
#define DEPTHWISE_ROWS              \
    "vmov %[a], s8\n\t"             \
    "vmov %[b], s9\n\t"             \
    "vmov %[c], s2\n\t"             \
    "add.w %[y], %[y], %[a]\n\t"    \
    "add.w %[p], %[p], %[b]\n\t"    \
    "subs.w %[c], %[c], #1\n\t"     \
    "vmov s2, %[c]\n\t"             \
    "bne.w 1b\n"                    \
    "4:\n\t"                        \
    "vmov %[c], s3\n\t"             \
    "cmp.w %[c], #0\n\t"            \
    "beq.w 7f\n\t"

/* 3x3 with stride 1. weights: (w0, w1) and (w1, w2) of each row. next: bytes of a block. */
DEPTHWISE_INLINE void depthwise_3x3(const int8_t *p, const depthwise_strip_t *strip, const uint32_t *weights, int32_t bias,
                                    const int32_t next)
{
    const depthwise_strip_t *a = strip; /* until it is a sum */
    int32_t b, c, d;
    uint32_t x, y;

    __asm__ volatile(
        DEPTHWISE_START
        DEPTHWISE_ROW("1")
        "2:\n\t"
        DEPTHWISE_LOAD(x, "0")
        DEPTHWISE_LOAD(y, "4")
#if CORE_CORTEX_M7
        "8:\n\t"
        DEPTHWISE_FIRST(d, a, x, w0)
        DEPTHWISE_ADD(d, a, y, w2)
        DEPTHWISE_FIRST(tb, b, x, w0)
        DEPTHWISE_LOAD(x, "8")
        DEPTHWISE_ADD(tb, b, y, w2)
        DEPTHWISE_FIRST(tb, d, y, w0)
        DEPTHWISE_ADD(d, a, x, w4)
        DEPTHWISE_ADD(tb, d, x, w2)
        DEPTHWISE_FIRST(d, c, y, w0)
        DEPTHWISE_LOAD(y, "12")
        DEPTHWISE_ADD(d, c, x, w2)
        DEPTHWISE_ADD(tb, d, y, w4)
        DEPTHWISE_ADD(tb, b, x, w4)
        DEPTHWISE_NEXT(x, "0")
        DEPTHWISE_ADD(d, c, y, w4)
        DEPTHWISE_NEXT(y, "4")
        "vmov %[bias], s1\n\t"
        DEPTHWISE_ADD(bt, a, x, w1)
        DEPTHWISE_ADD(bt, a, y, w3)
        DEPTHWISE_ADD(d, b, x, w1)
        DEPTHWISE_NEXT(x, "8")
        DEPTHWISE_ADD(bt, c, y, w1)
        DEPTHWISE_ADD(bt, a, x, w5)
        DEPTHWISE_ADD(d, b, y, w3)
        DEPTHWISE_SCALE(a, bias)
        DEPTHWISE_ADD(d, b, x, w5)
        DEPTHWISE_ADD(d, d, y, w1)
        DEPTHWISE_NEXT(y, "12")
        DEPTHWISE_SCALE(b, bias)
        DEPTHWISE_CLAMP(a)
        DEPTHWISE_ADD(bt, c, x, w3)
        DEPTHWISE_ADD(d, d, x, w3)
        "vmov %[x], s11\n\t"
        DEPTHWISE_TURN
        DEPTHWISE_ADD(d, d, y, w5)
        DEPTHWISE_ADD(bt, c, y, w5)
        "vmov %[y], s10\n\t"
        DEPTHWISE_CLAMP(b)
        DEPTHWISE_SCALE(d, bias)
        "strb.w %[b], [%[y], %[x]]\n\t"
        "vmov %[b], s4\n\t"
        "add.w %[b], %[b], %[y]\n\t"
        DEPTHWISE_SCALE(c, bias)
        "vmov %[bias], s13\n\t"
        "strb.w %[a], [%[y]]\n\t"
        DEPTHWISE_CLAMP(d)
        "strb.w %[d], [%[b], %[x]]\n\t"
        "add.w %[y], %[y], %[x], lsl #1\n\t"
        DEPTHWISE_LOAD(x, "0")
        DEPTHWISE_CLAMP(c)
        "strb.w %[c], [%[b]]\n\t"
        "vmov %[c], s12\n\t"
        "vmov s10, %[y]\n\t"
        "cmp.w %[p], %[c]\n\t"
        DEPTHWISE_LOAD(y, "4")
        "blo.w 8b\n\t"
        "vmov %[y], s10\n\t"
#else
        DEPTHWISE_FIRST(d, a, x, w0)
        DEPTHWISE_FIRST(tb, b, x, w0)
        DEPTHWISE_ADD(d, a, y, w2)
        DEPTHWISE_ADD(tb, b, y, w2)
        DEPTHWISE_FIRST(d, c, y, w0)
        DEPTHWISE_FIRST(tb, d, y, w0)
        DEPTHWISE_LOAD(x, "8")
        DEPTHWISE_LOAD(y, "12")
        DEPTHWISE_ADD(d, a, x, w4)
        DEPTHWISE_ADD(tb, b, x, w4)
        DEPTHWISE_ADD(d, c, x, w2)
        DEPTHWISE_ADD(tb, d, x, w2)
        DEPTHWISE_ADD(d, c, y, w4)
        DEPTHWISE_ADD(tb, d, y, w4)
        DEPTHWISE_NEXT(y, "4")
        "ldr.w %[x], [%[p], %[next]]!\n\t"
        DEPTHWISE_ADD(bt, a, x, w1)
        DEPTHWISE_ADD(d, b, x, w1)
        DEPTHWISE_ADD(bt, a, y, w3)
        DEPTHWISE_ADD(d, b, y, w3)
        DEPTHWISE_ADD(bt, c, y, w1)
        DEPTHWISE_ADD(d, d, y, w1)
        DEPTHWISE_LOAD(x, "8")
        DEPTHWISE_LOAD(y, "12")
        DEPTHWISE_ADD(bt, a, x, w5)
        DEPTHWISE_ADD(d, b, x, w5)
        DEPTHWISE_ADD(bt, c, x, w3)
        DEPTHWISE_ADD(d, d, x, w3)
        DEPTHWISE_ADD(bt, c, y, w5)
        DEPTHWISE_ADD(d, d, y, w5)
        "vmov %[x], s1\n\t"
        DEPTHWISE_OUT
        "cmp.w %[p], %[x]\n\t"
        "blo.w 2b\n\t"
#endif
        DEPTHWISE_LEFT_OVER("2", "3")
        DEPTHWISE_ROWS
        ".p2align 2\n"
        DEPTHWISE_ROW("5")
        "6:\n\t"
        DEPTHWISE_LOAD(x, "0")
        DEPTHWISE_LOAD(y, "4")
        DEPTHWISE_LOAD(c, "8")
        DEPTHWISE_FIRST(d, a, x, w0)
        DEPTHWISE_FIRST(tb, b, x, w0)
        DEPTHWISE_ADD(d, a, y, w2)
        DEPTHWISE_ADD(tb, b, y, w2)
        DEPTHWISE_ADD(d, a, c, w4)
        DEPTHWISE_ADD(tb, b, c, w4)
        DEPTHWISE_NEXT(y, "4")
        DEPTHWISE_NEXT(c, "8")
        DEPTHWISE_NEXT(x, "0")
        DEPTHWISE_ADD(bt, a, y, w3)
        DEPTHWISE_ADD(d, b, y, w3)
        DEPTHWISE_ADD(bt, a, c, w5)
        DEPTHWISE_ADD(d, b, c, w5)
        DEPTHWISE_ADD(bt, a, x, w1)
        DEPTHWISE_ADD(d, b, x, w1)
        "vmov %[x], s1\n\t"
        DEPTHWISE_TURN
        DEPTHWISE_OUT_SINGLE
        "cmp.w %[p], %[x]\n\t"
        "blo.w 6b\n\t"
        DEPTHWISE_LEFT_OVER("6", "7")
        : [a] "+r"(a), [b] "=&r"(b), [c] "=&r"(c), [d] "=&r"(d), [x] "=&r"(x), [y] "=&r"(y), [p] "+r"(p),
          [bias] "+r"(bias)
        : [w0] "r"(weights[0]), [w1] "r"(weights[1]), [w2] "r"(weights[2]), [w3] "r"(weights[3]), [w4] "r"(weights[4]),
          [w5] "r"(weights[5]),
          [next] "i"(next)
        : DEPTHWISE_CLOBBERS);
}

/* 3x3 with stride 2. weights: (w0, w1) of each row, then w2 of rows 0 and 1, and of row 2. next: bytes of two blocks. */
DEPTHWISE_INLINE void depthwise_3x3_stride2(const int8_t *p, const depthwise_strip_t *strip, const uint32_t *weights,
                                            int32_t bias, const int32_t next)
{
    const depthwise_strip_t *a = strip; /* until it is a sum */
    int32_t b, c, d;
    uint32_t x, y, z;

    __asm__ volatile(
        DEPTHWISE_START
        DEPTHWISE_ROW("1")
        "2:\n\t"
        DEPTHWISE_LOAD(x, "0")
        DEPTHWISE_LOAD(y, "4")
        DEPTHWISE_LOAD(z, "8")
#if CORE_CORTEX_M7
        "8:\n\t"
        DEPTHWISE_FIRST(d, a, x, w0)
        DEPTHWISE_ADD(d, a, y, w1)
        DEPTHWISE_ADD(d, a, z, w2)
        DEPTHWISE_LOAD(x, "12")
        DEPTHWISE_LOAD(y, "16")
        DEPTHWISE_FIRST(d, c, z, w0)
        DEPTHWISE_ADD(d, c, x, w1)
        DEPTHWISE_LOAD(z, "%c[block]")
        DEPTHWISE_LOAD(x, "%c[block]+4")
        DEPTHWISE_ADD(d, c, y, w2)
        DEPTHWISE_ADD(bb, a, z, w3)
        DEPTHWISE_LOAD(y, "%c[block]+8")
        DEPTHWISE_ADD(bt, a, x, w3)
        DEPTHWISE_FIRST(d, b, z, w0)
        DEPTHWISE_ADD(bb, a, y, w4)
        DEPTHWISE_ADD(d, b, x, w1)
        DEPTHWISE_FIRST(d, d, y, w0)
        "vmov %[bias], s1\n\t"
        DEPTHWISE_ADD(bb, c, y, w3)
        DEPTHWISE_LOAD(x, "%c[block]+16")
        DEPTHWISE_LOAD(z, "%c[block]+12")
        DEPTHWISE_ADD(d, b, y, w2)
        DEPTHWISE_NEXT(y, "0")
        DEPTHWISE_SCALE(a, bias)
        DEPTHWISE_ADD(bt, c, z, w3)
        DEPTHWISE_ADD(bb, c, x, w4)
        DEPTHWISE_CLAMP(a)
        DEPTHWISE_ADD(d, d, z, w1)
        DEPTHWISE_NEXT(z, "4")
        DEPTHWISE_ADD(d, d, x, w2)
        DEPTHWISE_NEXT(x, "8")
        DEPTHWISE_ADD(bb, b, y, w3)
        DEPTHWISE_NEXT(y, "12")
        DEPTHWISE_ADD(bt, b, z, w3)
        DEPTHWISE_NEXT(z, "16")
        DEPTHWISE_ADD(bb, d, x, w3)
        DEPTHWISE_ADD(bb, b, x, w4)
        "vmov %[x], s11\n\t"
        DEPTHWISE_ADD(bt, d, y, w3)
        "vmov %[y], s10\n\t"
        DEPTHWISE_SCALE(b, bias)
        DEPTHWISE_ADD(bb, d, z, w4)
        DEPTHWISE_TURN
        DEPTHWISE_SCALE(c, bias)
        DEPTHWISE_CLAMP(b)
        DEPTHWISE_SCALE(d, bias)
        "strb.w %[b], [%[y], %[x]]\n\t"
        "vmov %[b], s4\n\t"
        "strb.w %[a], [%[y]]\n\t"
        "add.w %[b], %[b], %[y]\n\t"
        DEPTHWISE_CLAMP(c)
        "add.w %[y], %[y], %[x], lsl #1\n\t"
        DEPTHWISE_CLAMP(d)
        "strb.w %[d], [%[b], %[x]]\n\t"
        DEPTHWISE_LOAD(x, "0")
        "strb.w %[c], [%[b]]\n\t"
        DEPTHWISE_LOAD(z, "8")
        "vmov s10, %[y]\n\t"
        "vmov %[bias], s13\n\t"
        "vmov %[c], s12\n\t"
        "cmp.w %[p], %[c]\n\t"
        DEPTHWISE_LOAD(y, "4")
        "blo.w 8b\n\t"
        "vmov %[y], s10\n\t"
#else
        DEPTHWISE_FIRST(d, a, x, w0)
        DEPTHWISE_ADD(d, a, y, w1)
        DEPTHWISE_ADD(d, a, z, w2)
        DEPTHWISE_FIRST(d, c, z, w0)
        DEPTHWISE_LOAD(x, "12")
        DEPTHWISE_LOAD(y, "16")
        DEPTHWISE_LOAD(z, "%c[block]")
        DEPTHWISE_ADD(d, c, x, w1)
        DEPTHWISE_ADD(d, c, y, w2)
        DEPTHWISE_ADD(bb, a, z, w3)
        DEPTHWISE_FIRST(d, b, z, w0)
        DEPTHWISE_LOAD(x, "%c[block]+4")
        DEPTHWISE_LOAD(y, "%c[block]+8")
        DEPTHWISE_LOAD(z, "%c[block]+12")
        DEPTHWISE_ADD(bt, a, x, w3)
        DEPTHWISE_ADD(d, b, x, w1)
        DEPTHWISE_ADD(bb, a, y, w4)
        DEPTHWISE_ADD(d, b, y, w2)
        DEPTHWISE_ADD(bb, c, y, w3)
        DEPTHWISE_FIRST(d, d, y, w0)
        DEPTHWISE_ADD(bt, c, z, w3)
        DEPTHWISE_ADD(d, d, z, w1)
        DEPTHWISE_LOAD(x, "%c[block]+16")
        DEPTHWISE_NEXT(z, "4")
        DEPTHWISE_NEXT(y, "0")
        DEPTHWISE_ADD(bb, c, x, w4)
        DEPTHWISE_ADD(d, d, x, w2)
        DEPTHWISE_ADD(bb, b, y, w3)
        DEPTHWISE_ADD(bt, b, z, w3)
        DEPTHWISE_NEXT(x, "8")
        DEPTHWISE_NEXT(y, "12")
        DEPTHWISE_NEXT(z, "16")
        DEPTHWISE_ADD(bb, b, x, w4)
        DEPTHWISE_ADD(bb, d, x, w3)
        DEPTHWISE_ADD(bt, d, y, w3)
        DEPTHWISE_ADD(bb, d, z, w4)
        "vmov %[x], s1\n\t"
        DEPTHWISE_TURN
        DEPTHWISE_OUT
        "cmp.w %[p], %[x]\n\t"
        "blo.w 2b\n\t"
#endif
        DEPTHWISE_LEFT_OVER("2", "3")
        DEPTHWISE_ROWS
        ".p2align 2\n"
        DEPTHWISE_ROW("5")
        "6:\n\t"
        DEPTHWISE_LOAD(x, "0")
        DEPTHWISE_LOAD(y, "4")
        DEPTHWISE_LOAD(c, "8")
        DEPTHWISE_FIRST(d, a, x, w0)
        DEPTHWISE_ADD(d, a, y, w1)
        DEPTHWISE_ADD(d, a, c, w2)
        DEPTHWISE_LOAD(x, "%c[block]")
        DEPTHWISE_LOAD(y, "%c[block]+4")
        DEPTHWISE_LOAD(c, "%c[block]+8")
        DEPTHWISE_ADD(bb, a, x, w3)
        DEPTHWISE_FIRST(d, b, x, w0)
        DEPTHWISE_ADD(bt, a, y, w3)
        DEPTHWISE_ADD(d, b, y, w1)
        DEPTHWISE_ADD(bb, a, c, w4)
        DEPTHWISE_ADD(d, b, c, w2)
        DEPTHWISE_NEXT(y, "4")
        DEPTHWISE_NEXT(c, "8")
        DEPTHWISE_NEXT(x, "0")
        DEPTHWISE_ADD(bt, b, y, w3)
        DEPTHWISE_ADD(bb, b, c, w4)
        DEPTHWISE_ADD(bb, b, x, w3)
        "vmov %[x], s1\n\t"
        DEPTHWISE_TURN
        DEPTHWISE_OUT_SINGLE
        "cmp.w %[p], %[x]\n\t"
        "blo.w 6b\n\t"
        DEPTHWISE_LEFT_OVER("6", "7")
        : [a] "+r"(a), [b] "=&r"(b), [c] "=&r"(c), [d] "=&r"(d), [x] "=&r"(x), [y] "=&r"(y), [z] "=&r"(z), [p] "+r"(p),
          [bias] "+r"(bias)
        : [w0] "r"(weights[0]), [w1] "r"(weights[1]), [w2] "r"(weights[2]), [w3] "r"(weights[3]), [w4] "r"(weights[4]),
          [block] "i"(next / 2), [next] "i"(next)
        : DEPTHWISE_CLOBBERS);
}

#else
#define DEPTHWISE_ASSEMBLY 0
#endif

#endif
