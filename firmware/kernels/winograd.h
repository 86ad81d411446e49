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

#define WINOGRAD_SHARED static __attribute__((noinline, noclone, unused)) /* one copy for all layers */

enum {
    WINOGRAD_TILE = 4,       /* outputs along a side */
    WINOGRAD_INPUTS = 6,     /* inputs along a side */
    WINOGRAD_POSITIONS = 36, /* products for each pair of channels */
    WINOGRAD_QUAD = 4,       /* tiles whose products are computed together */
    WINOGRAD_LOW = 128,      /* makes any int8 positive */
    WINOGRAD_CORNER = 12800, /* 128 * 10 * 10: the largest magnitude in V */
};

/* Loads and stores stay on their sides of this. Next to each other they take fewer cycles, and need fewer registers. */
static inline void winograd_fence(void)
{
    __asm__ volatile("" ::: "memory");
}

/* Fills a multiple of 4 bytes; returns where it stopped. */
static inline int8_t *winograd_fill(int8_t *to, int32_t bytes, uint32_t word)
{
    for (int8_t *end = to + bytes; to < end; to += 4) {
        store_u32(to, word);
    }
    return to;
}

/* Copies pixels of in_c channels to pixels of depth channels, of which further ones become 0; returns where it stopped. */
static inline int8_t *winograd_copy(int8_t *to, const int8_t *from, int32_t pixels, int32_t in_c, int32_t depth)
{
    if (in_c == depth) {
        int32_t bytes = pixels * depth;

        for (; bytes >= 16; bytes -= 16) {
            memcpy(to, from, 16);
            to += 16;
            from += 16;
        }
        for (; bytes > 0; bytes -= 4) {
            store_u32(to, load_u32(from));
            to += 4;
            from += 4;
        }
        return to;
    }
    for (int32_t i = 0; i < pixels; i++) {
        for (int32_t c = 0; c < depth; c++) {
            to[c] = c < in_c ? from[c] : 0;
        }
        to += depth;
        from += in_c;
    }
    return to;
}

/* Copies the inputs of the tile at (top, left), which may reach over the edge of the image, to patch[6][6][depth]. */
WINOGRAD_SHARED void winograd_patch(int8_t *patch, const int8_t *in, int32_t top, int32_t left, int32_t in_h, int32_t in_w,
                                    int32_t in_c, int32_t depth, int32_t zero_point)
{
    uint32_t outside = (uint32_t)(zero_point & 0xFF) * 0x01010101u;
    int32_t before = left < 0 ? -left : 0;
    int32_t behind = left + WINOGRAD_INPUTS > in_w ? left + WINOGRAD_INPUTS - in_w : 0;
    int32_t inside = WINOGRAD_INPUTS - before - behind;

    for (int32_t y = top; y < top + WINOGRAD_INPUTS; y++) {
        if (y < 0 || y >= in_h || inside <= 0) {
            patch = winograd_fill(patch, WINOGRAD_INPUTS * depth, outside);
        } else {
            patch = winograd_fill(patch, before * depth, outside);
            patch = winograd_copy(patch, &in[(y * in_w + left + before) * in_c], inside, in_c, depth);
            patch = winograd_fill(patch, behind * depth, outside);
        }
    }
}

/* V of one tile, whose first input is at `patch`; rows are `stride` bytes apart, `depth` is a multiple of 4. Further channels
 * of V, up to a multiple of 16, may hold anything: U is 0 there. */
#if defined(__ARM_FEATURE_DSP) && !CORE_CORTEX_M7

/* Loads next to each other take fewer cycles, and so does what lies on words: GCC has neither.
 *
 * B times r4..r9, to r4, r7, r8, r5, r11, r9 */
#define WINOGRAD_B                \
    "sub.w r11, r8, r6\n"         \
    "sub.w r8, r8, r6, lsl #2\n"  \
    "sub.w r4, r4, r6\n"          \
    "add.w r4, r11, r4, lsl #2\n" \
    "sub.w r6, r7, r5\n"          \
    "sub.w r5, r7, r5, lsl #2\n"  \
    "sub.w r9, r9, r7\n"          \
    "sub.w r9, r9, r6, lsl #2\n"  \
    "add.w r7, r8, r5\n"          \
    "sub.w r8, r8, r5\n"          \
    "add.w r5, r11, r6, lsl #1\n" \
    "sub.w r11, r11, r6, lsl #1\n"
#define WINOGRAD_STORE(to, offset, step)                  \
    "str.w r4, [" to ", #(" offset ")]\n"                 \
    "str.w r7, [" to ", #(" offset " + " step ")]\n"      \
    "str.w r8, [" to ", #(" offset " + 2 * " step ")]\n"  \
    "str.w r5, [" to ", #(" offset " + 3 * " step ")]\n"  \
    "str.w r11, [" to ", #(" offset " + 4 * " step ")]\n" \
    "str.w r9, [" to ", #(" offset " + 5 * " step ")]\n"
/* A column of the image, two of its four channels: r0 = top, r10 = fourth row, r1 = stride, lr and r12 = what is added. */
#define WINOGRAD_COLUMN(rotation, offset) \
    "ldr.w r4, [r0]\n"                    \
    "ldr.w r5, [r0, r1]\n"                \
    "ldr.w r6, [r0, r1, lsl #1]\n"        \
    "ldr.w r7, [r10]\n"                   \
    "ldr.w r8, [r10, r1]\n"               \
    "ldr.w r9, [r10, r1, lsl #1]\n"       \
    "sxtab16 r4, lr, r4" rotation "\n"    \
    "sxtab16 r5, lr, r5" rotation "\n"    \
    "sxtab16 r6, lr, r6" rotation "\n"    \
    "sxtab16 r7, lr, r7" rotation "\n"    \
    "sxtab16 r8, r12, r8" rotation "\n"   \
    "sxtab16 r9, r12, r9" rotation "\n" WINOGRAD_B WINOGRAD_STORE("r3", offset, "48")
#define WINOGRAD_LINE(offset) "ldm.w r10!, {r4-r9}\n" WINOGRAD_B WINOGRAD_STORE("r3", offset, "16")

__attribute__((naked, noipa, unused)) static void winograd_input(const int8_t *patch, int32_t stride, int32_t depth,
                                                                 uint32_t *v)
{
    (void)patch, (void)stride, (void)depth, (void)v; /* r0, r1, r2, r3 */
    __asm__("push {r4-r11, lr}\n"
            "add r4, r0, r2\n"
            "sub sp, sp, #12\n" /* 288: patch, 292: its end, 296: v */
            "str r3, [sp, #8]\n"
            "strd r0, r4, [sp]\n"
            "sub sp, sp, #288\n" /* B d: row, pair of channels, column */
            "mov lr, #128\n"
            ".balign 4\n"
            "1:\n"
            "mov.w r12, #128\n"
            "mov.w r3, sp\n"
            "2:\n"
            "add.w r10, r0, r1\n"
            "add.w r10, r10, r1, lsl #1\n" WINOGRAD_COLUMN("", "0") WINOGRAD_COLUMN(", ror #8", "24") /* */
            "add.w r0, r0, r2\n"
            "add.w r3, r3, #4\n"
            "add.w r10, sp, #16\n"
            "cmp.w r3, r10\n"
            "blo.w 2b\n"
            "movw r12, #(128 + 12800)\n" /* the last two columns */
            "add.w r10, sp, #24\n"
            "cmp.w r3, r10\n"
            "blo.w 2b\n"
            "mov.w r10, sp\n"
            "ldr.w r3, [sp, #296]\n"
            "add.w r0, sp, #288\n"
            "3:\n" WINOGRAD_LINE("0") WINOGRAD_LINE("576") /* */
            "add.w r3, r3, #96\n"
            "cmp.w r10, r0\n"
            "blo.w 3b\n"
            "ldr.w r0, [sp, #288]\n"
            "ldr.w r4, [sp, #292]\n"
            "add.w r3, r3, #576\n"
            "add.w r0, r0, #4\n" /* the next four channels */
            "str.w r3, [sp, #296]\n"
            "str.w r0, [sp, #288]\n"
            "cmp.w r0, r4\n"
            "blo.w 1b\n"
            "add sp, sp, #300\n"
            "pop {r4-r11, pc}\n");
}

#else

/* Six inputs of a row or column, two channels each. */
typedef struct {
    uint32_t d0, d1, d2, d3, d4, d5;
} winograd_line_t;

/* B times a line; element i of the result goes to to[i * step]. */
static inline __attribute__((always_inline)) void winograd_b(winograd_line_t d, uint32_t *to, int32_t step)
{
    uint32_t even = d.d4 - (d.d2 << 2);
    uint32_t odd = d.d3 - (d.d1 << 2);
    uint32_t d42 = d.d4 - d.d2;
    uint32_t d31 = d.d3 - d.d1;

    to[0] = d42 + ((d.d0 - d.d2) << 2);
    to[1 * step] = even + odd;
    to[2 * step] = even - odd;
    to[3 * step] = d42 + (d31 << 1);
    to[4 * step] = d42 - (d31 << 1);
    to[5 * step] = d.d5 - d.d3 - (d31 << 2);
    winograd_fence();
}

/* Words of a column of the image; rows are `stride` bytes apart. */
static inline __attribute__((always_inline)) winograd_line_t winograd_load_column(const int8_t *top, int32_t stride)
{
    const int8_t *middle = top + 3 * stride;
    winograd_line_t words = {load_u32(top),    load_u32(top + stride),    load_u32(top + 2 * stride),
                             load_u32(middle), load_u32(middle + stride), load_u32(middle + 2 * stride)};

    winograd_fence();
    return words;
}

WINOGRAD_SHARED void winograd_input(const int8_t *patch, int32_t stride, int32_t depth, uint32_t *v)
{
    enum { PAIR = WINOGRAD_POSITIONS * WINOGRAD_QUAD };

    for (const int8_t *end = patch + depth; patch < end; patch += 4) {
        uint32_t lines[WINOGRAD_INPUTS][2][WINOGRAD_INPUTS]; /* B d: row, pair of channels, column */
        const int8_t *top = patch;

        for (int32_t x = 0; x < WINOGRAD_INPUTS; x++) {
            uint32_t low = WINOGRAD_LOW;
            uint32_t bottom = x < WINOGRAD_TILE ? WINOGRAD_LOW : WINOGRAD_LOW + WINOGRAD_CORNER;
            winograd_line_t d = winograd_load_column(top, stride);

            d = (winograd_line_t){sxtab16(low, d.d0), sxtab16(low, d.d1),    sxtab16(low, d.d2),
                                  sxtab16(low, d.d3), sxtab16(bottom, d.d4), sxtab16(bottom, d.d5)};
            winograd_b(d, &lines[0][0][x], 2 * WINOGRAD_INPUTS);
            d = winograd_load_column(top, stride);
            d = (winograd_line_t){sxtab16_ror8(low, d.d0), sxtab16_ror8(low, d.d1),    sxtab16_ror8(low, d.d2),
                                  sxtab16_ror8(low, d.d3), sxtab16_ror8(bottom, d.d4), sxtab16_ror8(bottom, d.d5)};
            winograd_b(d, &lines[0][1][x], 2 * WINOGRAD_INPUTS);
            top += depth;
        }

        const uint32_t *line = lines[0][0];

        for (int32_t y = 0; y < WINOGRAD_INPUTS; y++) {
            for (int32_t pair = 0; pair < 2; pair++) {
                winograd_line_t d = {line[0], line[1], line[2], line[3], line[4], line[5]};

                winograd_fence();
                winograd_b(d, &v[pair * PAIR + y * WINOGRAD_INPUTS * WINOGRAD_QUAD], WINOGRAD_QUAD);
                line += WINOGRAD_INPUTS;
            }
        }
        v += 2 * PAIR;
    }
}

#endif

/*
 * M of two output channels in all positions of `quads` quads of tiles: for each position and quad
 *
 *   m[i] = u[i / 4] + sum over pairs k of channels of u[2 + 2 * k + i / 4] * v[k][i % 4]      for i in 0..7
 *
 * with two products in each u * v. `depth` is a multiple of 16.
 */
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_FP)

/* r4 to r11 are m[0] to m[7], r1 points to v of the first of eight pairs; k is the number of a pair among these. */
#define WINOGRAD_SUMS "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11"
#define WINOGRAD_STARTS "r7", "r7", "r7", "r7", "r11", "r11", "r11", "r11" /* where u[0] and u[1] are at first */

#if CORE_CORTEX_M7

/* A load is issued beside a multiplication and its word can be used two cycles later, so loads run ahead. r0 points to the
 * words of U, behind two others. */
#define WINOGRAD_AHEAD "ldr r12, [r1]\nldr r2, [r0, #8]\nldr r3, [r0, #12]\n"
#define WINOGRAD_PAIR_(k, ahead, m0, m1, m2, m3, m4, m5, m6, m7) \
    "smlad r4, r2, r12, " m0 "\n"                                \
    "ldr lr, [r1, #(576 * " #k " + 4)]\n"                        \
    "smlad r8, r3, r12, " m4 "\n"                                \
    "ldr r12, [r1, #(576 * " #k " + 8)]\n"                       \
    "smlad r5, r2, lr, " m1 "\n"                                 \
    "smlad r9, r3, lr, " m5 "\n"                                 \
    "ldr lr, [r1, #(576 * " #k " + 12)]\n"                       \
    "smlad r6, r2, r12, " m2 "\n"                                \
    "smlad r10, r3, r12, " m6 "\n"                               \
    ahead("ldr r12, [r1, #(576 * " #k " + 576)]\n")              \
    "smlad r7, r2, lr, " m3 "\n"                                 \
    ahead("ldr r2, [r0, #(8 * " #k " + 16)]\n")                  \
    "smlad r11, r3, lr, " m7 "\n"                                \
    ahead("ldr r3, [r0, #(8 * " #k " + 20)]\n")
#define WINOGRAD_DO(text) text
#define WINOGRAD_OMIT(text)
#define WINOGRAD_PAIR(k, ahead, ...) WINOGRAD_PAIR_(k, ahead, __VA_ARGS__)
#define WINOGRAD_PAIRS(...)                      \
    WINOGRAD_AHEAD                               \
    WINOGRAD_PAIR(0, WINOGRAD_DO, __VA_ARGS__)   \
    WINOGRAD_PAIR(1, WINOGRAD_DO, WINOGRAD_SUMS) \
    WINOGRAD_PAIR(2, WINOGRAD_DO, WINOGRAD_SUMS) \
    WINOGRAD_PAIR(3, WINOGRAD_DO, WINOGRAD_SUMS) \
    WINOGRAD_PAIR(4, WINOGRAD_DO, WINOGRAD_SUMS) \
    WINOGRAD_PAIR(5, WINOGRAD_DO, WINOGRAD_SUMS) \
    WINOGRAD_PAIR(6, WINOGRAD_DO, WINOGRAD_SUMS) \
    WINOGRAD_PAIR(7, WINOGRAD_OMIT, WINOGRAD_SUMS)

__attribute__((naked, noipa, unused)) static void winograd_products(const uint32_t *u, const uint32_t *v, int32_t *m,
                                                                       int32_t quads, int32_t depth)
{
    (void)u, (void)v, (void)m, (void)quads, (void)depth; /* r0, r1, r2, r3, on the stack */
    __asm__("push {r4-r11, lr}\n"
            "ldr r4, [sp, #36]\n" /* depth */
            "sub r4, r4, #16\n"
            "lsl r4, r4, #2\n" /* r4: bytes of U to the last 16 channels */
            "mov r5, #4608\n"
            "mul r5, r5, r3\n"
            "mul r6, r5, r4\n"
            "lsr r6, r6, #6\n"
            "add r5, r5, r6\n"
            "sub r5, r5, #16\n" /* r5: from V's end back to the next position */
            "mov r6, #1152\n"
            "mul r6, r6, r3\n"
            "sub r6, r6, #32\n" /* r6: the same for M */
            "mov r7, #36\n"     /* r7: positions left */
            "mov r9, r3\n"
            "push {r0, r2, r3, r4, r5, r6, r7, r8, r9}\n" /* 0: u, 4: m, 8: quads, ..., 28: last, 32: quads left */
            "1:\n"
            "ldr r0, [sp]\n"
            "ldr r4, [sp, #12]\n"
            "add r4, r4, r0\n"
            "str r4, [sp, #28]\n"
            "2:\n"
            "ldr r7, [r0]\n"
            "ldr r11, [r0, #4]\n" WINOGRAD_PAIRS(WINOGRAD_STARTS) /* the first 16 channels */
            "3:\n"
            "ldr r2, [sp, #28]\n"
            "ldr r3, [sp, #32]\n"
            "add r1, r1, #4608\n"
            "cmp r0, r2\n"
            "bne 5f\n"
            "ldr r2, [sp, #4]\n"
            "subs r3, r3, #1\n"
            "str r3, [sp, #32]\n"
            "add r12, r2, #1152\n" /* the next quad */
            "str r12, [sp, #4]\n"
            "stm r2, {r4-r11}\n"
            "ite ne\n"
            "ldrne r0, [sp]\n"
            "addeq r0, r0, #72\n"
            "bne 2b\n"
            "str r0, [sp]\n" /* the next position */
            "ldr r2, [sp, #8]\n"
            "ldr r3, [sp, #16]\n"
            "ldr r4, [sp, #20]\n"
            "ldr r5, [sp, #24]\n"
            "str r2, [sp, #32]\n"
            "sub r1, r1, r3\n"
            "sub r12, r12, r4\n"
            "str r12, [sp, #4]\n"
            "subs r5, r5, #1\n"
            "str r5, [sp, #24]\n"
            "bne 1b\n"
            "add sp, sp, #36\n"
            "pop {r4-r11, pc}\n"
            "5:\n"
            "add r0, r0, #64\n" WINOGRAD_PAIRS(WINOGRAD_SUMS) /* the next 16 channels */
            "b 3b\n");
}

#else

/* A load takes two cycles, but one behind another load of the same memory. U waits in the registers of the FPU, from where a
 * move takes one cycle: it is read once for all quads, and does not part loads of V. */
#define WINOGRAD_PAIR_(k, u0, u1, m0, m1, m2, m3, m4, m5, m6, m7) \
    "ldr r0, [r1, #(576 * " #k ")]\n"                             \
    "ldr r2, [r1, #(576 * " #k " + 4)]\n"                         \
    "ldr r3, [r1, #(576 * " #k " + 8)]\n"                         \
    "ldr r12, [r1, #(576 * " #k " + 12)]\n"                       \
    "vmov lr, " #u0 "\n"                                          \
    "smlad r4, lr, r0, " m0 "\n"                                  \
    "smlad r5, lr, r2, " m1 "\n"                                  \
    "smlad r6, lr, r3, " m2 "\n"                                  \
    "smlad r7, lr, r12, " m3 "\n"                                 \
    "vmov lr, " #u1 "\n"                                          \
    "smlad r8, lr, r0, " m4 "\n"                                  \
    "smlad r9, lr, r2, " m5 "\n"                                  \
    "smlad r10, lr, r3, " m6 "\n"                                 \
    "smlad r11, lr, r12, " m7 "\n"
#define WINOGRAD_PAIR(k, u0, u1, ...) WINOGRAD_PAIR_(k, u0, u1, __VA_ARGS__)
#define WINOGRAD_PAIRS_OF_S0_TO_S15           \
    WINOGRAD_PAIR(0, s0, s1, WINOGRAD_STARTS) \
    WINOGRAD_PAIR(1, s2, s3, WINOGRAD_SUMS)   \
    WINOGRAD_PAIR(2, s4, s5, WINOGRAD_SUMS)   \
    WINOGRAD_PAIR(3, s6, s7, WINOGRAD_SUMS)   \
    WINOGRAD_PAIR(4, s8, s9, WINOGRAD_SUMS)   \
    WINOGRAD_PAIR(5, s10, s11, WINOGRAD_SUMS) \
    WINOGRAD_PAIR(6, s12, s13, WINOGRAD_SUMS) \
    WINOGRAD_PAIR(7, s14, s15, WINOGRAD_SUMS)
#define WINOGRAD_PAIRS_OF_S16_TO_S31          \
    WINOGRAD_PAIR(0, s16, s17, WINOGRAD_SUMS) \
    WINOGRAD_PAIR(1, s18, s19, WINOGRAD_SUMS) \
    WINOGRAD_PAIR(2, s20, s21, WINOGRAD_SUMS) \
    WINOGRAD_PAIR(3, s22, s23, WINOGRAD_SUMS) \
    WINOGRAD_PAIR(4, s24, s25, WINOGRAD_SUMS) \
    WINOGRAD_PAIR(5, s26, s27, WINOGRAD_SUMS) \
    WINOGRAD_PAIR(6, s28, s29, WINOGRAD_SUMS) \
    WINOGRAD_PAIR(7, s30, s31, WINOGRAD_SUMS)

/* Of the first 32 channels all words of U stay in s0 to s31; of more than that the first 16, the others take turns. */
__attribute__((naked, noipa, unused)) static void winograd_products(const uint32_t *u, const uint32_t *v, int32_t *m,
                                                                       int32_t quads, int32_t depth)
{
    (void)u, (void)v, (void)m, (void)quads, (void)depth; /* r0, r1, r2, r3, on the stack */
    __asm__("push {r4-r11, lr}\n"
            "ldr r4, [sp, #36]\n" /* depth */
            "vpush {s16-s31}\n"
            "mov r5, #288\n"
            "mul r5, r5, r4\n"
            "mul r5, r5, r3\n"
            "sub r5, r5, #16\n" /* r5: from V's end back to the next position */
            "mov r6, #1152\n"
            "mul r6, r6, r3\n"
            "sub r6, r6, #32\n" /* r6: the same for M */
            "mov r7, #36\n"     /* r7: positions left */
            "subs r8, r4, #16\n"
            "lsl r4, r8, #2\n" /* r4: bytes of U behind the first 16 channels */
            "cmp r8, #16\n"
            "it eq\n"
            "moveq r8, #1\n" /* r8: 0 for 16 channels, 1 for 32, else the address of U's next words, from position to position */
            "mov r9, r8\n"   /* r9: where these end, or 1 */
            "sub sp, sp, #16\n" /* 36: u[0], 40: u[1], 44: quads left, 48: U's next words */
            "push {r0, r2, r3, r4, r5, r6, r7, r8, r9}\n" /* 0: u, 4: m, 8: quads, 12: r4, ... 32: r9 */
            "1:\n"
            "ldr r0, [sp]\n"
            "ldr r3, [sp, #8]\n"
            "ldr r4, [sp, #12]\n"
            "ldrd r2, r12, [r0], #8\n"
            "str r3, [sp, #44]\n"
            "vldm r0!, {s0-s15}\n"
            "strd r2, r12, [sp, #36]\n"
            "add r5, r0, r4\n"
            "str r5, [sp]\n"
            "cmp r4, #64\n"
            "blo 2f\n"
            "beq 7f\n"
            "str r0, [sp, #28]\n"
            "str r5, [sp, #32]\n"
            "b 2f\n"
            "7:\n"
            "vldm r0, {s16-s31}\n"
            ".balign 4\n"
            "2:\n"
            "ldr r7, [sp, #36]\n"
            "ldr.w r11, [sp, #40]\n" WINOGRAD_PAIRS_OF_S0_TO_S15 /* */
            "ldr r0, [sp, #28]\n"
            "ldr r2, [sp, #4]\n"
            "ldr r3, [sp, #44]\n"
            "add r1, r1, #4608\n"
            "cbnz r0, 4f\n"
            "3:\n"
            "stm r2!, {r4-r11}\n"
            "add r2, r2, #1120\n" /* the next quad */
            "subs r3, r3, #1\n"
            "str r2, [sp, #4]\n"
            "str r3, [sp, #44]\n"
            "bne 2b\n"
            "ldr r4, [sp, #16]\n" /* the next position */
            "ldr r5, [sp, #20]\n"
            "ldr r6, [sp, #24]\n"
            "sub r1, r1, r4\n"
            "sub r2, r2, r5\n"
            "subs r6, r6, #1\n"
            "str r2, [sp, #4]\n"
            "str r6, [sp, #24]\n"
            "bne 1b\n"
            "add sp, sp, #52\n"
            "vpop {s16-s31}\n"
            "pop {r4-r11, pc}\n"
            "4:\n"
            "cmp r0, #1\n"
            "beq 6f\n"
            "5:\n"
            "vldm r0!, {s16-s31}\n"
            ".balign 4\n"
            "6:\n"
            "str.w r0, [sp, #48]\n" WINOGRAD_PAIRS_OF_S16_TO_S31 /* */
            "ldr r0, [sp, #48]\n"
            "ldr r12, [sp, #32]\n"
            "ldr r2, [sp, #4]\n"
            "ldr r3, [sp, #44]\n"
            "add r1, r1, #4608\n"
            "cmp r0, r12\n"
            "beq 3b\n"
            "b 5b\n");
}

#endif

#else /* plain C twin */

WINOGRAD_SHARED void winograd_products(const uint32_t *u, const uint32_t *v, int32_t *m, int32_t quads, int32_t depth)
{
    enum { V_PAIR = WINOGRAD_POSITIONS * WINOGRAD_QUAD, M_QUAD = 2 * WINOGRAD_POSITIONS * WINOGRAD_QUAD };

    for (int32_t position = 0; position < WINOGRAD_POSITIONS; position++) {
        for (int32_t quad = 0; quad < quads; quad++) {
            for (int32_t i = 0; i < 2 * WINOGRAD_QUAD; i++) {
                const uint32_t *from = &v[quad * (depth / 2) * V_PAIR + position * WINOGRAD_QUAD + i % 4];
                int32_t sum = (int32_t)u[i / 4];

                for (int32_t k = 0; k < depth / 2; k++) {
                    sum = smlad(u[2 + 2 * k + i / 4], from[k * V_PAIR], sum);
                }
                m[quad * M_QUAD + position * 2 * WINOGRAD_QUAD + i] = sum;
            }
        }
        u += 2 + depth;
    }
}

#endif

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
    uint32_t x0, x1, x2, x3;
} winograd_row_t;

/* A row of A M, times A'. */
static inline winograd_row_t winograd_row(const uint32_t *m)
{
    uint32_t sum12 = m[1] + m[2];
    uint32_t sum34 = m[3] + m[4];
    uint32_t difference12 = m[1] - m[2];
    uint32_t difference34 = m[3] - m[4];

    return (winograd_row_t){sum34 + ((m[0] + sum12) << 1), difference12 + difference34, sum12 + (sum34 << 1),
                            difference12 + (difference34 << 2) + m[5]};
}

#endif
