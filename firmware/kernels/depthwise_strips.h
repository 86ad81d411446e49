/*
 * depthwise_strips.h: gathers the inputs of depthwise convolutions (codegen/templates/depthwise_strips_s8.c.j2).
 *
 * Channels are taken in groups: the rows of input that a strip of output rows needs are gathered into a buffer of int16 pairs.
 * A word of it holds two neighbouring columns of one channel, the padding among them. Words lie in blocks, one for each pair of
 * columns: in a block channel by channel, in a channel row by row. All distances inside a block are constants, so that the
 * inner loops need one pointer.
 *
 * "Rows" are those of the image or, where that suits its shape better, its columns: the generator swaps all sizes and steps.
 */
#ifndef DEPTHWISE_STRIPS_H
#define DEPTHWISE_STRIPS_H

#include <stdint.h>

#include "intrinsics.h"
#include "requantize.h"

#define DEPTHWISE_INLINE static inline __attribute__((always_inline))

/* The sizes of one layer. */
typedef struct {
    const int8_t *weights; /* of each channel its taps, row by row */
    const void *scales;    /* structs of requantize.h */
    int32_t channels;
    int32_t multiplier; /* outputs of each channel */
    int32_t in_rows;
    int32_t in_row_step; /* bytes from one row to the next */
    int32_t in_column_step;
    int32_t out_rows;
    int32_t out_row_step;
    int32_t out_columns;
    int32_t out_column_step;
    int32_t pad_top;
    int32_t blocks;
    int32_t first_block;  /* that has columns of the image */
    int32_t starts_odd;   /* whether only the second column of that block is one of the image */
    int32_t inner_blocks; /* after it, blocks with two columns of the image */
    int32_t ends_odd;     /* whether one more column follows */
    uint32_t padding;     /* the input's zero point in each byte */
} depthwise_t;

/* A channel of a strip: what is computed of it. The registers are those of the FPU that a field goes to. */
typedef struct {
    int8_t *to;          /* s0 */
    int32_t multiplier;  /* s1 */
    int32_t row_pairs;   /* s2 */
    int32_t single_rows; /* s3: 0 or 1 after the pairs */
    int32_t row;         /* s4: bytes from one row of outputs to the next */
    int32_t step;        /* s5: bytes from one column of outputs to the next */
    int32_t whole;       /* s6: bytes of the words of the pairs of columns in a row */
    int32_t all;         /* s7: and of a column that is left over, too */
    int32_t next_to;     /* s8: from the end of a pair of rows to the next one */
    int32_t next_p;      /* s9: the same, of words */
} depthwise_strip_t;

/* All but `to` and `multiplier`. `next`: bytes of the words of a pair of columns; `below`: of a pair of rows. */
DEPTHWISE_INLINE depthwise_strip_t depthwise_strip(const depthwise_t *layer, int32_t rows, int32_t next, int32_t below)
{
    int32_t pairs = layer->out_columns / 2;
    int32_t all = (layer->out_columns + 1) / 2 * next;

    return (depthwise_strip_t){
        .row_pairs = rows / 2,
        .single_rows = rows % 2,
        .row = layer->out_row_step,
        .step = pairs > 0 ? layer->out_column_step : 0,
        .whole = pairs > 0 ? pairs * next : next,
        .all = all,
        .next_to = 2 * (layer->out_row_step - pairs * layer->out_column_step),
        .next_p = below - all,
    };
}

/* Stores the pair of each channel: `left` and `right` are two pixels of four channels, or bytes of a single one. */
DEPTHWISE_INLINE void depthwise_store(int8_t *to, uint32_t left, uint32_t right, int32_t group, int32_t rows)
{
    uint32_t channels01, channels23;

    if (group == 1) {
        store_u32(to, pack_s16((int8_t)(uint8_t)left, (int8_t)(uint8_t)right));
        return;
    }
    channels01 = pack_lo(left, right);
    channels23 = pack_hi(left, right);
    store_u32(&to[0 * 4 * rows], sxtb16(channels01));
    store_u32(&to[1 * 4 * rows], sxtb16_ror8(channels01));
    store_u32(&to[2 * 4 * rows], sxtb16(channels23));
    store_u32(&to[3 * 4 * rows], sxtb16_ror8(channels23));
}

/* A pixel of a group of four channels or of one. */
DEPTHWISE_INLINE uint32_t depthwise_load(const int8_t *from, int32_t group)
{
    return group == 1 ? (uint8_t)*from : load_u32(from);
}

/* A row of padding. */
DEPTHWISE_INLINE void depthwise_pad(const depthwise_t *layer, int8_t *to, int32_t group, int32_t rows)
{
    uint32_t pair = sxtb16(layer->padding);
    int32_t blocks = layer->blocks;

    for (int32_t i = 0; i < blocks; i++) {
        for (int32_t channel = 0; channel < group; channel++) {
            store_u32(&to[4 * channel * rows], pair);
        }
        to += 4 * group * rows;
    }
}

/* Gathers rows y, y + 1, ... of the image into the blocks; `rows` is how many a block has, `to` the first row's place in
 * block 0. Rows of padding are left alone if the buffer has them already. */
DEPTHWISE_INLINE void depthwise_gather(const depthwise_t *layer, int8_t *to, const int8_t *in, int32_t y, int32_t count,
                                       int32_t is_padded, int32_t group, int32_t rows)
{
    const int32_t block_bytes = 4 * group * rows;
    int32_t step = layer->in_column_step;
    int32_t row_step = layer->in_row_step;
    int32_t in_rows = layer->in_rows;
    int32_t starts_odd = layer->starts_odd;
    int32_t inner_blocks = layer->inner_blocks;
    int32_t ends_odd = layer->ends_odd;
    int32_t first = layer->first_block * block_bytes;
    uint32_t padding = layer->padding;

    for (; count > 0; count--, y++, to += 4) {
        const int8_t *from = in;
        int8_t *block = &to[first];

        if (y < 0 || y >= in_rows) {
            if (!is_padded) {
                depthwise_pad(layer, to, group, rows);
            }
            continue;
        }
        from += y * row_step;
        if (starts_odd) {
            depthwise_store(block, padding, depthwise_load(from, group), group, rows);
            from += step;
            block += block_bytes;
        }
        for (int32_t left = inner_blocks / 2; left > 0; left--) {
            uint32_t pixel0 = depthwise_load(from, group);
            uint32_t pixel1 = depthwise_load(&from[step], group);
            uint32_t pixel2, pixel3;

            from += 2 * step;
            pixel2 = depthwise_load(from, group);
            pixel3 = depthwise_load(&from[step], group);
            from += 2 * step;
            depthwise_store(block, pixel0, pixel1, group, rows);
            depthwise_store(&block[block_bytes], pixel2, pixel3, group, rows);
            block += 2 * block_bytes;
        }
        if (inner_blocks % 2) {
            uint32_t pixel = depthwise_load(from, group);

            depthwise_store(block, pixel, depthwise_load(&from[step], group), group, rows);
            from += 2 * step;
            block += block_bytes;
        }
        if (ends_odd) {
            depthwise_store(block, depthwise_load(from, group), padding, group, rows);
        }
    }
}

/* The first `count` rows become what rows `from` on are. */
DEPTHWISE_INLINE void depthwise_move(const depthwise_t *layer, int8_t *buffer, int32_t from, int32_t count, int32_t group,
                                     int32_t rows)
{
    int32_t blocks = layer->blocks;

    for (int32_t i = 0; i < blocks; i++) {
        for (int32_t channel = 0; channel < group; channel++) {
            for (int32_t row = 0; row < count; row++) {
                store_u32(&buffer[4 * (channel * rows + row)], load_u32(&buffer[4 * (channel * rows + from + row)]));
            }
        }
        buffer += 4 * group * rows;
    }
}

/* Two weights as a pair, each times 2^shift. */
DEPTHWISE_INLINE uint32_t depthwise_weights(int8_t lo, int8_t hi, int32_t shift)
{
    return pack_lo((uint32_t)lo << shift, (uint32_t)hi << shift);
}

#endif
