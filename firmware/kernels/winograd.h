/*
 * winograd.h: 3x3 convolutions with stride 1 as Winograd's minimal filters F(4x4, 3x3), exactly, in integers.
 *
 * A tile of 4x4 outputs needs 6x6 inputs d, 36 products for each pair of channels instead of 144:
 *
 *   V = B d B'       for each input channel; here, winograd_input
 *   U = G w G'       for each pair of channels; by the generator (codegen/kernels/winograd.py)
 *   M = sum U * V    over input channels, in each of the 36 positions apart; winograd_products
 *   Y = A M A'       for each output channel; winograd_columns, winograd_row
 *
 * with the points 0, 1, -1, 2, -2 and infinity and all fractions multiplied away:
 *
 *       4  0 -5  0  1  0          3  0  0
 *       0 -4 -4  1  1  0         -2 -2 -2          2  2  2  1  1  0
 *   B = 0  4 -4 -1  1  0     G = -2  2 -2      A = 0  1 -1  1 -1  0
 *       0 -2 -1  2  1  0          1  2  4          0  1  1  2  2  0
 *       0  2 -1 -2  1  0          1 -2  4          0  1 -1  4 -4  1
 *       0  4  0 -5  0  1          0  0 12
 *
 * Y is 24 * 24, 24 * 12 or 12 * 12 times the sums of the convolution, modulo 2^32. The factor 9 is odd: it is taken out by
 * multiplying with its inverse modulo 2^32, which leaves a sum times a power of two, exactly.
 *
 * V and U fit int16. A word holds two input channels, which SMLAD multiplies at once. Both are transformed in one register as
 * the number 65536 * high + low: sums, differences and shifts need no care for the halves as long as low is not negative in the
 * end. It is made so by adding WINOGRAD_LOW to all of the low channel and WINOGRAD_CORNER to the four inputs at the bottom
 * right, which adds WINOGRAD_CORNER to every element of V (and 36 * WINOGRAD_LOW to one). The generator knows what that adds
 * to M and starts the sums with its negative.
 *
 * Layout: V [quad of tiles][pair of channels][36][tile of the quad], U [pair of outputs][36][2 starts, then pairs of channels
 * x 2 outputs], M [quad of tiles][36][2 outputs][tile of the quad]. Channels c and c + 2 of each group of four are a pair.
 */
#ifndef WINOGRAD_H
#define WINOGRAD_H

#include <stdint.h>

#include "intrinsics.h"

#define WINOGRAD_SHARED static __attribute__((noinline, unused)) /* one copy for all layers */

enum {
    WINOGRAD_TILE = 4,       /* outputs along a side */
    WINOGRAD_INPUTS = 6,     /* inputs along a side */
    WINOGRAD_POSITIONS = 36, /* products for each pair of channels */
    WINOGRAD_QUAD = 4,       /* tiles whose products are computed together */
    WINOGRAD_LOW = 128,      /* makes any int8 positive */
    WINOGRAD_CORNER = 12800, /* 128 * 10 * 10: the largest magnitude in V */
};

/* 1 / 9 modulo 2^32: 9 * 954437177 = 2 * 2^32 + 1 */
#define WINOGRAD_INVERSE 954437177u

/* Copies the inputs of the tile at (top, left), which may reach over the edge of the image, to patch[6][6][depth]. Channels
 * from in_c to depth become 0. */
WINOGRAD_SHARED void winograd_patch(int8_t *patch, const int8_t *in, int32_t top, int32_t left, int32_t in_h, int32_t in_w,
                                    int32_t in_c, int32_t depth, int32_t zero_point)
{
    uint32_t outside = (uint32_t)(zero_point & 0xFF) * 0x01010101u;

    for (int32_t y = top; y < top + WINOGRAD_INPUTS; y++) {
        for (int32_t x = left; x < left + WINOGRAD_INPUTS; x++) {
            if (y < 0 || y >= in_h || x < 0 || x >= in_w) {
                for (int32_t c = 0; c < depth; c += 4) {
                    store_u32(&patch[c], outside);
                }
            } else {
                const int8_t *from = &in[(y * in_w + x) * in_c];
                int32_t c = 0;

                for (; c + 4 <= in_c; c += 4) {
                    store_u32(&patch[c], load_u32(&from[c]));
                }
                for (; c < depth; c++) {
                    patch[c] = c < in_c ? from[c] : 0;
                }
            }
            patch += depth;
        }
    }
}

/* B times a column; element i of the result goes to to[i * step]. */
static inline __attribute__((always_inline)) void winograd_b(uint32_t d0, uint32_t d1, uint32_t d2, uint32_t d3, uint32_t d4,
                                                             uint32_t d5, uint32_t *to, int32_t step)
{
    uint32_t even = d4 - (d2 << 2);
    uint32_t odd = d3 - (d1 << 2);
    uint32_t d42 = d4 - d2;
    uint32_t d31 = d3 - d1;

    to[0] = d42 + ((d0 - d2) << 2);
    to[1 * step] = even + odd;
    to[2 * step] = even - odd;
    to[3 * step] = d42 + (d31 << 1);
    to[4 * step] = d42 - (d31 << 1);
    to[5 * step] = d5 - d3 - (d31 << 2);
}

/* V of one tile, whose first input is at `patch`; rows are `stride` bytes apart, `depth` is a multiple of 4. */
WINOGRAD_SHARED void winograd_input(const int8_t *patch, int32_t stride, int32_t depth, uint32_t *v)
{
    enum { PAIR = WINOGRAD_POSITIONS * WINOGRAD_QUAD };

    for (const int8_t *end = patch + depth; patch < end; patch += 4) {
        uint32_t rows[WINOGRAD_INPUTS][2][WINOGRAD_INPUTS]; /* B d: row, pair of channels, column */
        const int8_t *top = patch;

        for (int32_t x = 0; x < WINOGRAD_INPUTS; x++) {
            const int8_t *middle = top + 3 * stride;
            uint32_t d0 = load_u32(top);
            uint32_t d1 = load_u32(top + stride);
            uint32_t d2 = load_u32(top + 2 * stride);
            uint32_t d3 = load_u32(middle);
            uint32_t d4 = load_u32(middle + stride);
            uint32_t d5 = load_u32(middle + 2 * stride);
            uint32_t low = WINOGRAD_LOW;
            uint32_t bottom = x < 4 ? WINOGRAD_LOW : WINOGRAD_LOW + WINOGRAD_CORNER;

            winograd_b(sxtab16(low, d0), sxtab16(low, d1), sxtab16(low, d2), sxtab16(low, d3), sxtab16(bottom, d4),
                       sxtab16(bottom, d5), &rows[0][0][x], 2 * WINOGRAD_INPUTS);
            winograd_b(sxtab16_ror8(low, d0), sxtab16_ror8(low, d1), sxtab16_ror8(low, d2), sxtab16_ror8(low, d3),
                       sxtab16_ror8(bottom, d4), sxtab16_ror8(bottom, d5), &rows[0][1][x], 2 * WINOGRAD_INPUTS);
            top += depth;
        }
        for (int32_t y = 0; y < WINOGRAD_INPUTS; y++) {
            for (int32_t pair = 0; pair < 2; pair++) {
                const uint32_t *row = rows[y][pair];

                winograd_b(row[0], row[1], row[2], row[3], row[4], row[5],
                           &v[pair * PAIR + y * WINOGRAD_INPUTS * WINOGRAD_QUAD], WINOGRAD_QUAD);
            }
        }
        v += 2 * PAIR;
    }
}

/* M of two output channels in all positions of `quads` quads; u, v and m as in the layout, `depth` is a multiple of 4. */
WINOGRAD_SHARED void winograd_products(const uint32_t *u, const uint32_t *v, int32_t *m, int32_t quads, int32_t depth)
{
    enum { PAIR = WINOGRAD_POSITIONS * WINOGRAD_QUAD, M_QUAD = WINOGRAD_POSITIONS * 2 * WINOGRAD_QUAD };
    int32_t pairs = depth / 2;

    for (int32_t position = 0; position < WINOGRAD_POSITIONS; position++) {
        for (int32_t quad = 0; quad < quads; quad++) {
            const uint32_t *at = &v[quad * pairs * PAIR + position * WINOGRAD_QUAD];
            int32_t sum[8];

            for (int32_t i = 0; i < 8; i++) {
                sum[i] = (int32_t)u[i / 4];
            }
            for (int32_t pair = 0; pair < pairs; pair++) {
                for (int32_t i = 0; i < 8; i++) {
                    sum[i] = smlad(u[2 + 2 * pair + i / 4], at[pair * PAIR + i % 4], sum[i]);
                }
            }
            for (int32_t i = 0; i < 8; i++) {
                m[quad * M_QUAD + position * 8 + i] = sum[i];
            }
        }
        u += 2 + 2 * pairs;
    }
}

/* A M of one tile and output channel, whose first element is at `m`: columns[4][6]. */
WINOGRAD_SHARED void winograd_columns(const int32_t *m, uint32_t *columns)
{
    enum { STEP = 2 * WINOGRAD_QUAD, ROW = WINOGRAD_INPUTS * STEP };

    for (int32_t x = 0; x < WINOGRAD_INPUTS; x++) {
        uint32_t m0 = (uint32_t)m[0 * ROW];
        uint32_t m1 = (uint32_t)m[1 * ROW];
        uint32_t m2 = (uint32_t)m[2 * ROW];
        uint32_t m3 = (uint32_t)m[3 * ROW];
        uint32_t m4 = (uint32_t)m[4 * ROW];
        uint32_t m5 = (uint32_t)m[5 * ROW];
        uint32_t sum12 = m1 + m2;
        uint32_t sum34 = m3 + m4;
        uint32_t difference12 = m1 - m2;
        uint32_t difference34 = m3 - m4;

        columns[0 * WINOGRAD_INPUTS] = sum34 + ((m0 + sum12) << 1);
        columns[1 * WINOGRAD_INPUTS] = difference12 + difference34;
        columns[2 * WINOGRAD_INPUTS] = sum12 + (sum34 << 1);
        columns[3 * WINOGRAD_INPUTS] = difference12 + (difference34 << 2) + m5;
        columns++;
        m += STEP;
    }
}

/* Four outputs of a row, each times its factor. */
typedef struct {
    uint32_t x[WINOGRAD_TILE];
} winograd_row_t;

/* A row of A M, times A'. */
static inline winograd_row_t winograd_row(const uint32_t *m)
{
    uint32_t sum12 = m[1] + m[2];
    uint32_t sum34 = m[3] + m[4];
    uint32_t difference12 = m[1] - m[2];
    uint32_t difference34 = m[3] - m[4];

    return (winograd_row_t){{sum34 + ((m[0] + sum12) << 1), difference12 + difference34, sum12 + (sum34 << 1),
                             difference12 + (difference34 << 2) + m[5]}};
}

/* The sum of the convolution; `inverse` times the factor of `scaled` is 64 modulo 2^32. */
static inline int32_t winograd_sum(uint32_t scaled, uint32_t inverse)
{
    return (int32_t)(scaled * inverse) >> 6;
}

#endif
