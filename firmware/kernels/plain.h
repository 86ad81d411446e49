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

/* One copy for all layers of a model; models that do without have none. */
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
    int32_t first = (dilation - 1 - start) / dilation;
    int32_t end = (dilation - 1 + length - start) / dilation;

    first = first > 0 ? first : 0;
    end = end < taps ? end : taps;
    return (plain_taps_t){first, end > first ? end - first : 0};
}

/*
 * What of a window lies inside the input, for an output: `runs` of `rows` rows, at least one. A row has four elements `fours` times, side by
 * side, then `ones`, which lie `step` apart; its weights lie side by side. From its end it is `row_skip` to the next one, and
 * `weight_row_skip` for weights. `outputs` channels of the output read the same inputs, the next ones `inputs` channels further
 * on; each has `weights`.
 */
typedef struct {
    int32_t rows, fours, ones, step, row_skip, weight_row_skip, runs, run_step, inputs, outputs, weights;
    uint32_t minus_zero_points; /* of the inputs, in both halves */
} plain_window_t;

/* What is read next. */
typedef struct {
    const int8_t *x, *w;
} plain_at_t;

/* sum + (x[0] - zero point) * w[0] + ..., four elements `fours` times; wraps around as int32 does in TFLM. Both loops in assembly,
 * because GCC takes half as much again with flags for the least size. */
static inline int32_t plain_fours(int32_t sum, plain_at_t *at, int32_t fours, uint32_t minus_zero_points)
{
#if defined(__ARM_FEATURE_DSP)
    uint32_t x, w, even_x, even_w;

    __asm__ volatile("1:\n\t"
                     "ldr %[x], [%[at_x]], #4\n\t"
                     "ldr %[w], [%[at_w]], #4\n\t"
                     "subs %[fours], %[fours], #1\n\t"
                     "sxtab16 %[even_x], %[minus], %[x]\n\t"
                     "sxtb16 %[even_w], %[w]\n\t"
                     "sxtab16 %[x], %[minus], %[x], ror #8\n\t"
                     "smlad %[sum], %[even_x], %[even_w], %[sum]\n\t"
                     "sxtb16 %[w], %[w], ror #8\n\t"
                     "smlad %[sum], %[x], %[w], %[sum]\n\t"
                     "bne 1b\n"
                     : [sum] "+r"(sum), [at_x] "+r"(at->x), [at_w] "+r"(at->w), [fours] "+r"(fours), [x] "=&r"(x),
                       [w] "=&r"(w), [even_x] "=&r"(even_x), [even_w] "=&r"(even_w)
                     : [minus] "r"(minus_zero_points)
                     : "cc", "memory");
#else
    for (; fours > 0; fours--) {
        uint32_t x = load_u32(at->x);
        uint32_t w = load_u32(at->w);

        sum = smlad(sxtab16(minus_zero_points, x), sxtb16(w), sum);
        sum = smlad(sxtab16_ror8(minus_zero_points, x), sxtb16_ror8(w), sum);
        at->x += 4;
        at->w += 4;
    }
#endif
    return sum;
}

/* As plain_fours, of `ones` elements that lie `step` apart. */
static inline int32_t plain_ones(int32_t sum, plain_at_t *at, int32_t ones, int32_t step, uint32_t minus_zero_points)
{
#if defined(__ARM_FEATURE_DSP)
    uint32_t x, w;

    __asm__ volatile("1:\n\t"
                     "ldrb %[x], [%[at_x]]\n\t"
                     "ldrsb %[w], [%[at_w]], #1\n\t"
                     "subs %[ones], %[ones], #1\n\t"
                     "sxtab16 %[x], %[minus], %[x]\n\t"
                     "add %[at_x], %[at_x], %[step]\n\t"
                     "smlabb %[sum], %[x], %[w], %[sum]\n\t"
                     "bne 1b\n"
                     : [sum] "+r"(sum), [at_x] "+r"(at->x), [at_w] "+r"(at->w), [ones] "+r"(ones), [x] "=&r"(x), [w] "=&r"(w)
                     : [minus] "r"(minus_zero_points), [step] "r"(step)
                     : "cc", "memory");
#else
    for (; ones > 0; ones--) {
        sum = smlabb(sxtab16(minus_zero_points, (uint8_t)*at->x), (uint32_t)*at->w, sum);
        at->x += step;
        at->w++;
    }
#endif
    return sum;
}

/* All channels of an output pixel. */
PLAIN_FUNCTION void plain_pixel(const plain_layer_t *layer, const plain_window_t *window, const int8_t *in,
                                const int8_t *weight, int8_t *out)
{
    const scale_t *scale = layer->channel;
    int32_t sharing = window->outputs;

    for (int32_t c = layer->out_c; c > 0; c--) {
        int32_t sum = scale->bias;
        int32_t run = window->runs;

        do {
            plain_at_t at = {in + --run * window->run_step, weight + run * window->inputs};
            int32_t rows = window->rows;

            do {
                if (window->fours > 0) {
                    sum = plain_fours(sum, &at, window->fours, window->minus_zero_points);
                }
                if (window->ones > 0) {
                    sum = plain_ones(sum, &at, window->ones, window->step, window->minus_zero_points);
                }
                at.x += window->row_skip;
                at.w += window->weight_row_skip;
            } while (--rows > 0);
        } while (run > 0);
        weight += window->weights;
        if (--sharing == 0) {
            sharing = window->outputs;
            in += window->inputs;
        }

        int32_t value = requantize(sum, scale->multiplier, scale->shift) + layer->out_zp;

        *out++ = (int8_t)clamp(value, layer->act_min, layer->act_max);
        scale++;
    }
}

/* depth_multiplier: of a depthwise convolution, whose output channel c reads input channel c / depth_multiplier; 0: any other. */
PLAIN_FUNCTION void plain_conv2d(const plain_layer_t *layer, int32_t depth_multiplier, const int8_t *in,
                                 int8_t *restrict out)
{
    int32_t in_c = layer->in_c;
    int32_t inputs = depth_multiplier > 0 ? 1 : in_c;
    int32_t tap_step = layer->dilation_w * in_c;
    bool are_joined = depth_multiplier > 0 || layer->dilation_w == 1; /* the taps of a row are one run */
    plain_window_t window = {
        .step = depth_multiplier > 0 ? tap_step : 1,
        .minus_zero_points = pack_s16(-layer->in_zp, -layer->in_zp),
        .run_step = tap_step,
        .inputs = inputs,
        .weights = layer->kh * layer->kw * inputs,
        .outputs = depth_multiplier > 0 ? depth_multiplier : layer->out_c,
    };

    for (int32_t row = 0; row < layer->batch * layer->out_h; row++) {
        const int8_t *image = &in[row / layer->out_h * layer->in_h * layer->in_w * in_c];
        int32_t top = row % layer->out_h * layer->stride_h - layer->pad_top;
        plain_taps_t ys = plain_taps(top, layer->kh, layer->dilation_h, layer->in_h);

        top += ys.first * layer->dilation_h;
        for (int32_t ox = 0; ox < layer->out_w; ox++) {
            int32_t left = ox * layer->stride_w - layer->pad_left;
            plain_taps_t xs = plain_taps(left, layer->kw, layer->dilation_w, layer->in_w);

            bool is_outside = ys.count == 0 || xs.count == 0;
            int32_t length = is_outside ? 0 : are_joined ? xs.count * inputs : inputs;

            left += xs.first * layer->dilation_w;
            window.rows = is_outside ? 1 : ys.count;
            window.runs = is_outside || are_joined ? 1 : xs.count;
            window.fours = window.step == 1 ? length / 4 : 0;
            window.ones = length - 4 * window.fours;
            window.row_skip = layer->dilation_h * layer->in_w * in_c - length * window.step;
            window.weight_row_skip = layer->kw * inputs - length;
            plain_pixel(layer, &window, &image[(top * layer->in_w + left) * in_c],
                        &layer->weight[(ys.first * layer->kw + xs.first) * inputs], out);
            out += layer->out_c;
        }
    }
}

#endif
