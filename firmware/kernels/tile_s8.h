/*
 * tile_s8.h: tiles of four output channels for a row of pixel pairs, from columns to int8 outputs: dot_4x2 and folded_channel
 * in one piece of assembly, because all registers are taken from the first product to the last store.
 */
#ifndef TILE_S8_H
#define TILE_S8_H

#include <stdint.h>

#include "column.h"
#include "dot_s8.h"
#include "requantize.h"

#if defined(__ARM_FEATURE_DSP)

/* sum = bias + (sum << shift) */
#define TILE_ADD_LOW(sum, bias) "add %[" #sum "], %[" #bias "], %[" #sum "], lsl %[shift]\n\t"
/* sum = bias + sum, of what dot_difference gives */
#define TILE_ADD_HIGH(sum, bias) "add.w %[" #sum "], %[" #bias "], %[" #sum "]\n\t"
/* sum = sum * factor >> 32 */
#define TILE_MULTIPLY(sum, factor) "smmul %[" #sum "], %[" #sum "], %[" #factor "]\n\t"
/* sum = saturate_s8(sum >> places) */
#define TILE_SATURATE(sum) "ssat %[" #sum "], #8, %[" #sum "], asr %[places]\n\t"
/* to[at] = sum */
#define TILE_STORE(sum, at, to) "strb.w %[" #sum "], [%[" #to "], #" #at "]\n\t"
/* The words of folded_t behind the tile's weights. */
#define TILE_SCALES(at0, at1, at2, at3)                                                                                      \
    "ldr.w %[w01], [%[weights], #" #at0 "]\n\tldr.w %[w23], [%[weights], #" #at1 "]\n\t"                                     \
    "ldr.w %[x0], [%[weights], #" #at2 "]\n\tldr.w %[x1], [%[weights], #" #at3 "]\n\t"

/* Behind what was used. */
#if CORE_CORTEX_M7
#define TILE_BACK "sub %[weights], %[weights], #4\n\tsub %[columns], %[columns], #8\n\t"
#else
#define TILE_BACK ""
#endif

#endif

/* Constants of folded_channel, for all layers that use these functions: one for all needs less code. */
enum { TILE_SHIFT = 8, TILE_PLACES = 12 };

/* One tile; see tiles_4x2. */
DOT_INLINE void tile_4x2(const uint32_t *weights, const int16_t *columns, int8_t *out, int32_t depth, int32_t pairs,
                         int32_t apart)
{
    int32_t rest = (depth / 2 - 1) % DOT_4X2_UNROLLED;
    const int16_t *last = columns + 2 * depth * pairs;

#if defined(__ARM_FEATURE_DSP)
    uint32_t w01 = (uint32_t)(DOT_4X2_STEP_BYTES * (DOT_4X2_UNROLLED - rest)) + 1; /* into the loop; 1: Thumb */
    uint32_t w23, x0, x1, entry;
    int32_t c0p0, c0p1, c1p0, c1p1, c2p0, c2p1, c3p0, c3p1;
    const uint32_t *first = weights;
    const uint32_t *end = weights + depth + DOT_4X2_AHEAD_WEIGHTS;

    __asm__ volatile(
        "adr.w %[w23], 1f\n\t"
        "add %[w23], %[w23], %[w01]\n\t"
        "vmov %[entry], %[w23]\n\t"
        ".p2align 3\n"
        "2:\n\t"
        DOT_4X2_SUMS("vmov %[w23], %[entry]\n\tbx %[w23]\n\t")
        TILE_BACK
        TILE_SCALES(0, 4, 8, 12)
        "sub %[c1p0], %[c1p0], %[c0p0]\n\t" /* dot_difference */
        "sub %[c1p1], %[c1p1], %[c0p1]\n\t"
        TILE_ADD_LOW(c0p0, w01)
        TILE_ADD_LOW(c0p1, w01)
        TILE_MULTIPLY(c0p0, w23)
        TILE_ADD_HIGH(c1p0, x0)
        TILE_MULTIPLY(c0p1, w23)
        TILE_ADD_HIGH(c1p1, x0)
        TILE_MULTIPLY(c1p0, x1)
        TILE_MULTIPLY(c1p1, x1)
        TILE_SCALES(16, 20, 24, 28)
        "sub %[c3p0], %[c3p0], %[c2p0]\n\t"
        "sub %[c3p1], %[c3p1], %[c2p1]\n\t"
        TILE_SATURATE(c0p0)
        TILE_ADD_LOW(c2p0, w01)
        TILE_SATURATE(c0p1)
        TILE_ADD_LOW(c2p1, w01)
        TILE_MULTIPLY(c2p0, w23)
        TILE_SATURATE(c1p0)
        TILE_ADD_HIGH(c3p0, x0)
        TILE_MULTIPLY(c2p1, w23)
        TILE_SATURATE(c1p1)
        TILE_ADD_HIGH(c3p1, x0)
        TILE_MULTIPLY(c3p0, x1)
        "vmov %[w01], %[out]\n\t"
        TILE_MULTIPLY(c3p1, x1)
        "vmov %[w23], %[apart]\n\t"
        TILE_SATURATE(c2p0)
        TILE_STORE(c0p0, 0, w01)
        TILE_SATURATE(c2p1)
        TILE_STORE(c1p0, 1, w01)
        TILE_SATURATE(c3p0)
        TILE_STORE(c2p0, 2, w01)
        TILE_SATURATE(c3p1)
        TILE_STORE(c3p0, 3, w01)
        "add.w %[w01], %[w01], %[w23]\n\t"
        "vmov %[x0], %[last]\n\t"
        TILE_STORE(c0p1, 0, w01)
        "cmp.w %[columns], %[x0]\n\t"
        TILE_STORE(c1p1, 1, w01)
        "vmov %[weights], %[first]\n\t"
        TILE_STORE(c2p1, 2, w01)
        "add.w %[w23], %[w01], %[w23]\n\t"
        TILE_STORE(c3p1, 3, w01)
        "vmov %[out], %[w23]\n\t"
        "bne.w 2b\n"
        : [weights] "+r"(weights), [columns] "+r"(columns), [out] "+t"(out), [entry] "=&t"(entry), [w01] "+r"(w01),
          [w23] "=&r"(w23), [x0] "=&r"(x0), [x1] "=&r"(x1), [c0p0] "=&r"(c0p0), [c0p1] "=&r"(c0p1), [c1p0] "=&r"(c1p0),
          [c1p1] "=&r"(c1p1), [c2p0] "=&r"(c2p0), [c2p1] "=&r"(c2p1), [c3p0] "=&r"(c3p0), [c3p1] "=&r"(c3p1)
        : [first] "t"(first), [end] "t"(end), [last] "t"(last), [apart] "t"(apart), [shift] "i"(TILE_SHIFT),
          [places] "i"(TILE_PLACES)
        : "cc", "memory");
#else
    while (columns < last) {
        const uint32_t *weight = weights;
        dot_4x2_t sum = dot_4x2(&weight, &columns, depth, rest, DOT_PAIRS);
        const folded_t *scale = (const folded_t *)weight;
        int32_t pixel0[4] = {sum.c0p0, dot_difference(sum.c1p0, sum.c0p0), sum.c2p0, dot_difference(sum.c3p0, sum.c2p0)};
        int32_t pixel1[4] = {sum.c0p1, dot_difference(sum.c1p1, sum.c0p1), sum.c2p1, dot_difference(sum.c3p1, sum.c2p1)};

        for (int32_t c = 0; c < 4; c++) {
            int32_t left = c % 2 ? 0 : TILE_SHIFT;

            out[c] = folded_clamp(folded_channel(pixel0[c], scale[c], left), TILE_PLACES, -128, 127);
            out[apart + c] = folded_clamp(folded_channel(pixel1[c], scale[c], left), TILE_PLACES, -128, 127);
        }
        out += 2 * apart;
    }
#endif
}

/*
 * Tiles of four channels. weights: those of a tile in DOT_PAIRS, its four folded_t behind them, then the next tile's. columns:
 * of `pairs` pairs of pixels. out: of the first channel and pixel; the second pixel of a pair is `apart` bytes further on, the
 * next pair twice as many (an odd last pixel is a pair of its own, its own partner, with 0). depth: see dot_4x2.
 */
static __attribute__((noinline, noclone, unused)) void tiles_4x2(const uint32_t *weights, const int16_t *columns, int8_t *out,
                                                                 int32_t depth, int32_t tiles, int32_t pairs, int32_t apart)
{
    for (; tiles > 0; tiles--) {
        tile_4x2(weights, columns, out, depth, pairs, apart);
        weights += depth + 4 * (int32_t)(sizeof(folded_t) / sizeof *weights);
        out += 4;
    }
}

/* As tiles_4x2, for the one to three channels that are left over: in pairs, the constants behind each. */
static __attribute__((noinline, noclone, unused)) void tiles_2x2(const uint32_t *weights, const int16_t *columns, int8_t *out,
                                                                 int32_t depth, int32_t channels, int32_t pairs, int32_t apart)
{
    for (; channels > 0; channels -= 2) {
        const folded_t *scale = (const folded_t *)(weights + depth / 2);
        folded_t low = scale[0];
        folded_t high = scale[channels > 1 ? 1 : 0];
        const int16_t *column = columns;
        int8_t *to = out;

        for (int32_t pair = 0; pair < pairs; pair++) {
            const uint32_t *weight = weights;
            dot_2x2_t sum = dot_2x2(&weight, &column, depth, DOT_PAIRS);

            to[0] = folded_clamp(folded_channel(sum.c0p0, low, TILE_SHIFT), TILE_PLACES, -128, 127);
            to[apart] = folded_clamp(folded_channel(sum.c0p1, low, TILE_SHIFT), TILE_PLACES, -128, 127);
            if (channels > 1) {
                int32_t c1p0 = dot_difference(sum.c1p0, sum.c0p0);
                int32_t c1p1 = dot_difference(sum.c1p1, sum.c0p1);

                to[1] = folded_clamp(folded_high(c1p0, high, TILE_SHIFT), TILE_PLACES, -128, 127);
                to[apart + 1] = folded_clamp(folded_high(c1p1, high, TILE_SHIFT), TILE_PLACES, -128, 127);
            }
            to += 2 * apart;
        }
        weights += depth / 2 + 2 * (int32_t)(sizeof(folded_t) / sizeof *weights);
        out += 2;
    }
}

/* All channels of some pixels, from `columns` in pairs; see tiles_4x2. The last of an odd number of pixels is its own partner:
 * computed twice, stored twice. */
static __attribute__((noinline, noclone, unused)) void tiles_s8(const uint32_t *weights, const int16_t *columns, int8_t *out,
                                                                int32_t depth, int32_t channels, int32_t pixels)
{
    int32_t tiles = channels / 4;
    const uint32_t *weights_left = weights + tiles * (depth + 4 * (int32_t)(sizeof(folded_t) / sizeof *weights));
    int32_t pairs = pixels / 2;
    int32_t apart = channels;

    while (pixels > 0) {
        if (pairs > 0) {
            tiles_4x2(weights, columns, out, depth, tiles, pairs, apart);
            tiles_2x2(weights_left, columns, out + 4 * tiles, depth, channels % 4, pairs, apart);
        }
        columns += 2 * depth * pairs;
        out += 2 * channels * pairs;
        pixels -= apart == 0 ? 1 : 2 * pairs;
        pairs = 1;
        apart = 0;
    }
}

/* column_rest of a column that is one run; out of the way of the loop that needs it now and then. */
static __attribute__((noinline, noclone, unused)) void column_end(int16_t *end, const int8_t *pixel0, const int8_t *pixel1,
                                                                  int32_t count)
{
    column_rest(end, 0, pixel0, pixel1, count);
}

/* The columns of some pixels that lie one behind the other, `depth` bytes each. */
static __attribute__((noinline, noclone, unused)) void pointwise_columns(int16_t *columns, const int8_t *in, int32_t depth,
                                                                         int32_t pixels)
{
    for (; pixels > 0; pixels -= 2) {
        const int8_t *partner = pixels > 1 ? in + depth : in;
        int16_t *rest = column_groups(columns, in, partner, depth & ~3);

        if (depth % 4 != 0) {
            column_end(rest, in + (depth & ~3), partner + (depth & ~3), depth % 4);
            rest += 4 * ((depth % 4 + 1) / 2);
        }
        columns = rest;
        in = partner + depth;
    }
}

/* A convolution whose output pixel i depends on input pixel i alone. block: pixels that `columns` has room for; even. */
static __attribute__((noinline, noclone, unused)) void pointwise_s8(const int8_t *in, int8_t *out, int16_t *columns,
                                                                    const uint32_t *weights, int32_t in_c, int32_t out_c,
                                                                    int32_t pixels, int32_t block)
{
    for (; pixels > 0; pixels -= block) {
        int32_t count = pixels < block ? pixels : block;

        pointwise_columns(columns, in, in_c, count);
        tiles_s8(weights, columns, out, in_c + in_c % 2, out_c, count);
        in += count * in_c;
        out += count * out_c;
    }
}

#endif
