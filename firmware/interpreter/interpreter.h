/*
 * interpreter.h: the engine `reference`: walks a .tflite at run time, with plain kernels, the way TFLM works.
 *
 * model_init reads the flatbuffer, prepares every operator (factors are computed here, from the float scales) and plans the
 * arena; model_run evaluates the operators in their order. Tables and parameters live at the end of the arena, tensors at
 * its beginning.
 */
#ifndef INTERPRETER_H
#define INTERPRETER_H

#include "fixed_point.h"
#include "flatbuffer.h"
#include "schema.h"

enum { MAX_RANK = 6 };

/* A tensor at run time. Its quantisation stays in the flatbuffer: only preparing an operator needs it. */
typedef struct {
    uint8_t *data;       /* in the arena, or, for a constant, in the flatbuffer */
    const int32_t *dims; /* in the flatbuffer */
    uint8_t rank;
    uint8_t type; /* TYPE_... */
} tensor_t;

typedef struct op_kind op_kind_t;

/* An operator of the model. Tensor lists lie in the flatbuffer, behind their length; -1 is an absent optional input. */
typedef struct {
    const op_kind_t *kind;
    void *params; /* what prepare computed, in the arena; its type belongs to the kind */
    const int32_t *inputs;
    const int32_t *outputs;
    fb_table_t table;
} op_t;

/* One kind of operator: a file op_<name>.c. */
struct op_kind {
    uint32_t params_bytes; /* zeroed and given as op->params before `prepare` */
    /* Called once. Returns NULL, or why the operator cannot be run. */
    const char *(*prepare)(op_t *op);
    void (*eval)(const op_t *op);
};

/* What runs an operator code. Only kinds that the model's table names are linked. */
typedef struct {
    int32_t opcode; /* OPCODE_... */
    const op_kind_t *kind;
} resolver_entry_t;

/* What the generated model.c gives. */
typedef struct {
    const uint8_t *flatbuffer;
    uint8_t *arena; /* aligned to 16 bytes */
    uint32_t arena_bytes;
    const resolver_entry_t *resolver;
    uint32_t resolver_count;
    const uint16_t *operators; /* those that an output depends on, in order; converters leave others behind */
    uint32_t operator_count;
} interpreter_model_t;

extern const interpreter_model_t interpreter_model;

/* What kinds of operators use. */

/* Tensor `index` of the operator's list; NULL if it is absent or beyond the end. */
const tensor_t *op_input(const op_t *op, uint32_t index);
const tensor_t *op_output(const op_t *op);
uint32_t op_input_count(const op_t *op);
/* The table of the operator's options; may be NULL, then every option has its default. */
fb_table_t op_options(const op_t *op);
/* `bytes` of the arena that stay until reset, aligned to 4; NULL if there is no room. While preparing only. */
void *persistent_alloc(uint32_t bytes);

/* Number of scales: 1 if per tensor. */
uint32_t tensor_scale_count(const tensor_t *tensor);
float tensor_scale_at(const tensor_t *tensor, uint32_t channel);
float tensor_scale(const tensor_t *tensor);
int32_t tensor_zero_point(const tensor_t *tensor);
/* Elements; 1 for a scalar. */
uint32_t tensor_elements(const tensor_t *tensor);
uint32_t tensor_item_bytes(const tensor_t *tensor);
uint32_t tensor_bytes(const tensor_t *tensor);
/* Item `index` of a constant of s32 or s64; an s64 beyond s32 saturates. */
int32_t tensor_integer_at(const tensor_t *tensor, uint32_t index);

/* What a fused activation lets through, as values of the s8 output. */
typedef struct {
    int32_t low;
    int32_t high;
} activation_range_t;

activation_range_t activation_range(int32_t activation, const tensor_t *output);

extern const char out_of_arena[];

#endif
