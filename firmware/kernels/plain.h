/*
 * plain.h: convolutions of any shape, scale and weights as one function each for all layers, for the least flash and without
 * scratch. Weights are int8 as in the model.
 */
#ifndef PLAIN_H
#define PLAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "intrinsics.h"
#include "requantize.h"

/* One copy for all layers of a model; models that do without have none. Inner loops are functions, too: inlined, they would be
 * short of registers. */
#define PLAIN_FUNCTION static __attribute__((noinline, unused))

/* A layer. `weight`: (out_c, kh, kw, in_c), of a depthwise one (out_c, kh, kw); `channel`: out_c rows. */
typedef struct {
    const int8_t *weight;
    const scale_t *channel;
    int32_t batch, in_h, in_w, in_c, out_h, out_w, out_c;
    int16_t kh, kw, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    int8_t in_zp, out_zp, act_min, act_max;
} plain_layer_t;

/* The taps of one axis that lie inside the input: `count` from `first` on; tap k reads element start + k * dilation. */
typedef struct {
    int32_t first, count;
} plain_taps_t;

PLAIN_FUNCTION plain_taps_t plain_taps(int32_t start, int32_t taps, int32_t dilation, int32_t length)
{
    plain_taps_t inside = {0, 0};

    for (int32_t k = 0; k < taps; k++) {
        int32_t element = start + k * dilation;

        inside.first += element < 0 ? 1 : 0;
        inside.count += element >= 0 && element < length ? 1 : 0;
    }
    return inside;
}

/* sum + (x[0] - zero_point) * w[0] + ...; wraps around as int32 does in TFLM. */
PLAIN_FUNCTION int32_t plain_dot(int32_t sum, const int8_t *x, const int8_t *w, int32_t length, int32_t zero_point)
{
    uint32_t minus_zero_points = pack_s16(-zero_point, -zero_point);

    for (; length >= 4; length -= 4) {
        uint32_t four_x = load_u32(x);
        uint32_t four_w = load_u32(w);

        sum = smlad(sxtab16(minus_zero_points, four_x), sxtb16(four_w), sum);
        sum = smlad(sxtab16_ror8(minus_zero_points, four_x), sxtb16_ror8(four_w), sum);
        x += 4;
        w += 4;
    }
    for (; length > 0; length--) {
        sum = add_wrapping(sum, (*x++ - zero_point) * *w++);
    }
    return sum;
}

/* As plain_dot, of elements that lie `step` apart. */
PLAIN_FUNCTION int32_t plain_dot_apart(int32_t sum, const int8_t *x, const int8_t *w, int32_t length, int32_t zero_point,
                                       int32_t step)
{
    for (; length > 0; length--) {
        sum = add_wrapping(sum, (*x - zero_point) * *w++);
        x += step;
    }
    return sum;
}

PLAIN_FUNCTION int8_t plain_output(const plain_layer_t *layer, const scale_t *scale, int32_t sum)
{
    int32_t value = requantize(sum, scale->multiplier, scale->shift) + layer->out_zp;

    return (int8_t)clamp(value, layer->act_min, layer->act_max);
}

PLAIN_FUNCTION void plain_conv2d(const plain_layer_t *layer, const int8_t *in, int8_t *restrict out)
{
    int32_t in_c = layer->in_c;
    int32_t line = layer->dilation_h * layer->in_w * in_c;
    int32_t weight_line = layer->kw * in_c;

    for (int32_t row = 0; row < layer->batch * layer->out_h; row++) {
        const int8_t *image = &in[row / layer->out_h * layer->in_h * layer->in_w * in_c];
        int32_t top = row % layer->out_h * layer->stride_h - layer->pad_top;
        plain_taps_t ys = plain_taps(top, layer->kh, layer->dilation_h, layer->in_h);

        for (int32_t ox = 0; ox < layer->out_w; ox++) {
            int32_t left = ox * layer->stride_w - layer->pad_left;
            plain_taps_t xs = plain_taps(left, layer->kw, layer->dilation_w, layer->in_w);
            int32_t y = top + ys.first * layer->dilation_h;
            int32_t x = left + xs.first * layer->dilation_w;
            const int8_t *first = &image[(y * layer->in_w + x) * in_c];
            const int8_t *weight = &layer->weight[ys.first * weight_line + xs.first * in_c];
            bool is_dense = layer->dilation_w == 1; /* the taps of a line lie side by side */
            int32_t runs = is_dense ? 1 : xs.count;
            int32_t length = is_dense ? xs.count * in_c : in_c;

            for (int32_t c = 0; c < layer->out_c; c++) {
                const scale_t *scale = &layer->channel[c];
                int32_t sum = scale->bias;

                for (int32_t ky = 0; ky < ys.count; ky++) {
                    for (int32_t run = 0; run < runs; run++) {
                        sum = plain_dot(sum, &first[ky * line + run * layer->dilation_w * in_c],
                                        &weight[ky * weight_line + run * in_c], length, layer->in_zp);
                    }
                }
                weight += layer->kh * weight_line;
                *out++ = plain_output(layer, scale, sum);
            }
        }
    }
}

/* Output channel c reads input channel c / depth_multiplier. */
PLAIN_FUNCTION void plain_depthwise(const plain_layer_t *layer, int32_t depth_multiplier, const int8_t *in,
                                    int8_t *restrict out)
{
    int32_t in_c = layer->in_c;
    int32_t step = layer->dilation_w * in_c;

    for (int32_t row = 0; row < layer->batch * layer->out_h; row++) {
        const int8_t *image = &in[row / layer->out_h * layer->in_h * layer->in_w * in_c];
        int32_t top = row % layer->out_h * layer->stride_h - layer->pad_top;
        plain_taps_t ys = plain_taps(top, layer->kh, layer->dilation_h, layer->in_h);

        for (int32_t ox = 0; ox < layer->out_w; ox++) {
            int32_t left = ox * layer->stride_w - layer->pad_left;
            plain_taps_t xs = plain_taps(left, layer->kw, layer->dilation_w, layer->in_w);
            int32_t y = top + ys.first * layer->dilation_h;
            int32_t x = left + xs.first * layer->dilation_w;
            const int8_t *first = &image[(y * layer->in_w + x) * in_c];
            const int8_t *weight = &layer->weight[ys.first * layer->kw + xs.first];
            int32_t line = layer->dilation_h * layer->in_w * in_c;

            for (int32_t c = 0; c < layer->out_c; c++) {
                const scale_t *scale = &layer->channel[c];
                const int8_t *element = &first[c / depth_multiplier];
                int32_t sum = scale->bias;

                for (int32_t ky = 0; ky < ys.count; ky++) {
                    sum = plain_dot_apart(sum, &element[ky * line], &weight[ky * layer->kw], xs.count, layer->in_zp, step);
                }
                weight += layer->kh * layer->kw;
                *out++ = plain_output(layer, scale, sum);
            }
        }
    }
}

#endif
