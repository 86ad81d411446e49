/*
 * params.h: what each kind of operator keeps in the arena. The generator counts these bytes when it computes the arena, and
 * the generated model.c asserts that it counted right.
 */
#ifndef PARAMS_H
#define PARAMS_H

#include "interpreter.h"

/* Where a convolution or a pool looks. */
typedef struct {
    int32_t stride_h, stride_w;
    int32_t dilation_h, dilation_w;
    int32_t pad_top, pad_left;
} window_t;

/* CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED; the last has an empty window. */
typedef struct {
    window_t window;
    int32_t in_zero_point;
    int32_t out_zero_point;
    activation_range_t range;
    multiplier_t *factors; /* one per output channel, or one for all; in the arena too */
    uint32_t factor_step;  /* 1 or 0: channel * factor_step is the channel's factor */
} conv_params_t;

/* AVERAGE_POOL_2D, MAX_POOL_2D */
typedef struct {
    window_t window;
    int32_t kh, kw;
    activation_range_t range;
} pool_params_t;

/* ADD, SUB */
typedef struct {
    int32_t a_zero_point, b_zero_point, out_zero_point;
    multiplier_t a_factor, b_factor, out_factor;
    activation_range_t range;
} add_params_t;

/* MUL */
typedef struct {
    int32_t a_zero_point, b_zero_point, out_zero_point;
    multiplier_t factor;
    activation_range_t range;
} mul_params_t;

/* RELU, RELU_N1_TO_1 */
typedef struct {
    int32_t in_zero_point, out_zero_point;
    multiplier_t factor;
    activation_range_t range;
} relu_params_t;

/* RELU6 */
typedef struct {
    activation_range_t range;
} relu6_params_t;

/* QUANTIZE */
typedef struct {
    int32_t in_zero_point, out_zero_point;
    multiplier_t factor; /* from integers */
    float scale;         /* from float32 */
} quantize_params_t;

/* LEAKY_RELU */
typedef struct {
    int32_t in_zero_point, out_zero_point;
    multiplier_t positive_factor, negative_factor;
} leaky_relu_params_t;

/* HARD_SWISH */
typedef struct {
    int32_t in_zero_point, out_zero_point;
    int32_t out_multiplier, out_shift;         /* Q15 */
    int32_t reluish_multiplier, reluish_shift; /* Q15 */
} hard_swish_params_t;

/* LOGISTIC, TANH */
typedef struct {
    int32_t in_zero_point;
    int32_t radius; /* distance from the zero point beyond which the output saturates */
    multiplier_t factor;
} sigmoid_params_t;

/* SOFTMAX */
typedef struct {
    multiplier_t factor;
    int32_t lowest_difference; /* to the row's maximum; below it exp is 0 */
} softmax_params_t;

/* MEAN */
typedef struct {
    int32_t zero_point_sum; /* the input's zero point times the elements of one mean */
    int32_t out_zero_point;
    multiplier_t factor;
    uint32_t is_reduced[MAX_RANK];
} mean_params_t;

/* DEQUANTIZE */
typedef struct {
    float scale;
    int32_t zero_point;
} dequantize_params_t;

/* PAD, PADV2 */
typedef struct {
    int32_t value;
    int32_t before[MAX_RANK]; /* elements in front, per axis */
} pad_params_t;

/* STRIDED_SLICE, TRANSPOSE: how to walk the input, per axis of the walk. */
typedef struct {
    int32_t begin; /* item of the input */
    int32_t stride[MAX_RANK]; /* items of the input */
    int32_t count[MAX_RANK];
} slice_params_t;

/* What more than one kind uses. */

/* Reads stride and padding of Conv2DOptions, DepthwiseConv2DOptions or Pool2DOptions; dilations are 1. */
window_t window_of(fb_table_t options);
/* Sets the padding of SAME from the shapes of input and output; that of VALID is 0. */
void window_pad(window_t *window, fb_table_t options, const tensor_t *input, const tensor_t *output, int32_t kh, int32_t kw);
/* Zero points, activation and one factor per scale of the weights. */
const char *conv_prepare(op_t *op, int32_t activation);

/* Copies items as slice_params_t says, into the output in order. */
void eval_strided_copy(const op_t *op);

extern const char bad_scales[];

#endif
