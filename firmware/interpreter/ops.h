/*
 * ops.h: every kind of operator, for the resolver table of a generated model.c.
 *
 * To add one: op_<name>.c with an op_kind_t, its line here, its parameters in params.h, its number in schema.h, and an entry in
 * KINDS of codegen/engines/reference_interpreter.py.
 */
#ifndef OPS_H
#define OPS_H

#include "interpreter.h"

extern const op_kind_t op_add;
extern const op_kind_t op_average_pool2d;
extern const op_kind_t op_concatenation;
extern const op_kind_t op_conv2d;
extern const op_kind_t op_dense;
extern const op_kind_t op_dequantize;
extern const op_kind_t op_dwconv2d;
extern const op_kind_t op_hard_swish;
extern const op_kind_t op_leaky_relu;
extern const op_kind_t op_logistic;
extern const op_kind_t op_max_pool2d;
extern const op_kind_t op_mean;
extern const op_kind_t op_mul;
extern const op_kind_t op_pad;
extern const op_kind_t op_quantize;
extern const op_kind_t op_relu;
extern const op_kind_t op_relu6;
extern const op_kind_t op_relu_n1_to_1;
extern const op_kind_t op_reshape;
extern const op_kind_t op_softmax;
extern const op_kind_t op_strided_slice;
extern const op_kind_t op_sub;
extern const op_kind_t op_tanh;
extern const op_kind_t op_transpose;

#endif
