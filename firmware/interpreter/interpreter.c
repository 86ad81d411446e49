/* interpreter.c: model.h on top of a flatbuffer. */
#include "interpreter.h"

#include <stddef.h>
#include <string.h>

#include "model.h"
#include "planner.h"

enum { ARENA_ALIGNMENT = 16 };

const char out_of_arena[] = "the arena is too small";

static struct {
    fb_table_t model;
    fb_table_t subgraph;
    fb_vector_t tensor_tables;
    tensor_t *tensors;
    op_t *ops;
    uint32_t tensor_count;
    uint32_t op_count;
    uint32_t free_bytes; /* of the arena, in front of what is persistent */
} self;

/* Tensors */

static fb_table_t quantization(const tensor_t *tensor)
{
    return fb_table(fb_table_at(self.tensor_tables, (uint32_t)(tensor - self.tensors)), TENSOR_QUANTIZATION);
}

uint32_t tensor_scale_count(const tensor_t *tensor)
{
    return fb_vector(quantization(tensor), QUANTIZATION_SCALE).length;
}

float tensor_scale_at(const tensor_t *tensor, uint32_t channel)
{
    const fb_vector_t scales = fb_vector(quantization(tensor), QUANTIZATION_SCALE);
    if (scales.length == 0) {
        return 1.0f;
    }
    return fb_f32_at(scales, scales.length == 1 ? 0 : channel);
}

float tensor_scale(const tensor_t *tensor)
{
    return tensor_scale_at(tensor, 0);
}

int32_t tensor_zero_point(const tensor_t *tensor)
{
    const fb_vector_t zero_points = fb_vector(quantization(tensor), QUANTIZATION_ZERO_POINT);
    return zero_points.length == 0 ? 0 : fb_i64_low_at(zero_points, 0);
}

uint32_t tensor_elements(const tensor_t *tensor)
{
    uint32_t elements = 1;
    for (uint32_t axis = 0; axis < tensor->rank; axis++) {
        elements *= (uint32_t)tensor->dims[axis];
    }
    return elements;
}

uint32_t tensor_item_bytes(const tensor_t *tensor)
{
    switch (tensor->type) {
    case TYPE_F32:
    case TYPE_S32:
        return 4;
    case TYPE_S16:
        return 2;
    default:
        return 1;
    }
}

uint32_t tensor_bytes(const tensor_t *tensor)
{
    return tensor_elements(tensor) * tensor_item_bytes(tensor);
}

int32_t tensor_integer_at(const tensor_t *tensor, uint32_t index)
{
    const int32_t *items = (const int32_t *)(const void *)tensor->data;
    if (tensor->type != TYPE_S64) {
        return items[index];
    }
    const int32_t low = items[2 * index], high = items[2 * index + 1];
    return high == (low < 0 ? -1 : 0) ? low : high < 0 ? INT32_MIN : INT32_MAX;
}

/* Operators */

/* Vectors are preceded by their length. */
static uint32_t list_length(const int32_t *list)
{
    return list == NULL ? 0 : (uint32_t)list[-1];
}

uint32_t op_input_count(const op_t *op)
{
    return list_length(op->inputs);
}

const tensor_t *op_input(const op_t *op, uint32_t index)
{
    return index < op_input_count(op) && op->inputs[index] >= 0 ? &self.tensors[op->inputs[index]] : NULL;
}

const tensor_t *op_output(const op_t *op)
{
    return &self.tensors[op->outputs[0]];
}

fb_table_t op_options(const op_t *op)
{
    return fb_table(op->table, OPERATOR_OPTIONS);
}

void *persistent_alloc(uint32_t bytes)
{
    bytes = (bytes + 3) & ~(uint32_t)3;
    if (bytes > self.free_bytes) {
        return NULL;
    }
    self.free_bytes -= bytes;
    return memset(interpreter_model.arena + self.free_bytes, 0, bytes);
}

/* The value of `real` on the tensor's scale, limited to s8. */
static int32_t quantize_s8(float real, const tensor_t *tensor)
{
    const int64_t value = (int64_t)round_to_s32(real / tensor_scale(tensor)) + tensor_zero_point(tensor);
    return value < INT8_MIN ? INT8_MIN : value > INT8_MAX ? INT8_MAX : (int32_t)value;
}

activation_range_t activation_range(int32_t activation, const tensor_t *output)
{
    switch (activation) {
    case ACTIVATION_RELU:
        return (activation_range_t){quantize_s8(0.0f, output), INT8_MAX};
    case ACTIVATION_RELU_N1_TO_1:
        return (activation_range_t){quantize_s8(-1.0f, output), quantize_s8(1.0f, output)};
    case ACTIVATION_RELU6:
        return (activation_range_t){quantize_s8(0.0f, output), quantize_s8(6.0f, output)};
    default:
        return (activation_range_t){INT8_MIN, INT8_MAX};
    }
}

/* Reading the model */

/* The data of a constant; NULL for a tensor that lives in the arena. */
static uint8_t *constant_data(fb_table_t tensor)
{
    const fb_vector_t buffers = fb_vector(self.model, MODEL_BUFFERS);
    const fb_table_t buffer = fb_table_at(buffers, (uint32_t)fb_i32(tensor, TENSOR_BUFFER, 0));
    const fb_vector_t data = fb_vector(buffer, BUFFER_DATA);
    return data.length == 0 ? NULL : (uint8_t *)(uintptr_t)data.items;
}

static const char *read_tensors(void)
{
    self.tensor_tables = fb_vector(self.subgraph, SUBGRAPH_TENSORS);
    self.tensor_count = self.tensor_tables.length;
    self.tensors = persistent_alloc(self.tensor_count * sizeof(tensor_t));
    if (self.tensors == NULL) {
        return out_of_arena;
    }
    for (uint32_t i = 0; i < self.tensor_count; i++) {
        const fb_table_t table = fb_table_at(self.tensor_tables, i);
        const fb_vector_t shape = fb_vector(table, TENSOR_SHAPE);
        self.tensors[i] = (tensor_t){
            .data = constant_data(table),
            .dims = (const int32_t *)(const void *)shape.items,
            .rank = (uint8_t)shape.length,
            .type = (uint8_t)fb_i8(table, TENSOR_TYPE, TYPE_F32),
        };
    }
    return NULL;
}

static const op_kind_t *resolve(fb_table_t operator_code)
{
    /* Codes below 127 once had a field of one byte; newer files fill both, older ones only that. */
    const int32_t deprecated = fb_i8(operator_code, OPERATOR_CODE_DEPRECATED, 0);
    const int32_t builtin = fb_i32(operator_code, OPERATOR_CODE_BUILTIN, 0);
    const int32_t opcode = builtin > deprecated ? builtin : deprecated;
    for (uint32_t i = 0; i < interpreter_model.resolver_count; i++) {
        if (interpreter_model.resolver[i].opcode == opcode) {
            return interpreter_model.resolver[i].kind;
        }
    }
    return NULL;
}

static const char *read_ops(void)
{
    const fb_vector_t tables = fb_vector(self.subgraph, SUBGRAPH_OPERATORS);
    const fb_vector_t codes = fb_vector(self.model, MODEL_OPERATOR_CODES);
    self.op_count = interpreter_model.operator_count;
    self.ops = persistent_alloc(self.op_count * sizeof(op_t));
    if (self.ops == NULL) {
        return out_of_arena;
    }
    for (uint32_t i = 0; i < self.op_count; i++) {
        op_t *op = &self.ops[i];
        op->table = fb_table_at(tables, interpreter_model.operators[i]);
        op->inputs = (const int32_t *)(const void *)fb_vector(op->table, OPERATOR_INPUTS).items;
        op->outputs = (const int32_t *)(const void *)fb_vector(op->table, OPERATOR_OUTPUTS).items;
        op->kind = resolve(fb_table_at(codes, (uint32_t)fb_i32(op->table, OPERATOR_OPCODE_INDEX, 0)));
        if (op->kind == NULL) {
            return "the model has an operator that was not linked";
        }
        op->params = persistent_alloc(op->kind->params_bytes);
        if (op->params == NULL) {
            return out_of_arena;
        }
        const char *problem = op->kind->prepare(op);
        if (problem != NULL) {
            return problem;
        }
    }
    return NULL;
}

/* Planning */

/* Extends the lifetimes of the listed tensors to `step`. */
static void touch(planned_buffer_t *buffers, uint32_t count, const int32_t *list, uint32_t step)
{
    for (uint32_t i = 0; i < list_length(list); i++) {
        for (uint32_t b = 0; b < count; b++) {
            if (buffers[b].tensor == list[i]) {
                buffers[b].first = buffers[b].first < step ? buffers[b].first : (uint16_t)step;
                buffers[b].last = buffers[b].last > step ? buffers[b].last : (uint16_t)step;
            }
        }
    }
}

/* Places all tensors that are no constants at the beginning of the arena. The table that this needs lies in the same bytes:
 * no tensor has a value yet. */
static const char *plan_tensors(void)
{
    planned_buffer_t *buffers = (planned_buffer_t *)(void *)interpreter_model.arena;
    uint32_t count = 0;
    for (uint32_t i = 0; i < self.tensor_count; i++) {
        if (self.tensors[i].data != NULL) {
            continue;
        }
        if ((count + 1) * sizeof(planned_buffer_t) > self.free_bytes) {
            return out_of_arena;
        }
        const uint32_t bytes = tensor_bytes(&self.tensors[i]);
        buffers[count++] = (planned_buffer_t){
            .bytes = (bytes + ARENA_ALIGNMENT - 1) & ~(uint32_t)(ARENA_ALIGNMENT - 1),
            .first = UINT16_MAX,
            .tensor = (uint16_t)i,
        };
    }

    /* Step 0 is before the first operator, where the inputs are written. */
    const int32_t *inputs = (const int32_t *)(const void *)fb_vector(self.subgraph, SUBGRAPH_INPUTS).items;
    const int32_t *outputs = (const int32_t *)(const void *)fb_vector(self.subgraph, SUBGRAPH_OUTPUTS).items;
    touch(buffers, count, inputs, 0);
    for (uint32_t i = 0; i < self.op_count; i++) {
        touch(buffers, count, self.ops[i].inputs, i + 1);
        touch(buffers, count, self.ops[i].outputs, i + 1);
    }
    touch(buffers, count, outputs, self.op_count);
    for (uint32_t b = 0; b < count; b++) {
        if (buffers[b].first == UINT16_MAX) { /* nothing that runs uses it */
            buffers[b].bytes = 0;
        }
    }

    if (plan_greedy(buffers, count) > self.free_bytes) {
        return out_of_arena;
    }
    for (uint32_t b = 0; b < count; b++) {
        self.tensors[buffers[b].tensor].data = interpreter_model.arena + buffers[b].offset;
    }
    return NULL;
}

/* model.h */

const char *model_init(void)
{
    self.model = fb_root(interpreter_model.flatbuffer);
    self.subgraph = fb_table_at(fb_vector(self.model, MODEL_SUBGRAPHS), 0);
    self.free_bytes = interpreter_model.arena_bytes;
    if (fb_i32(self.model, MODEL_VERSION, 0) != SCHEMA_VERSION) {
        return "the model's schema version is not 3";
    }

    const char *problem = read_tensors();
    if (problem == NULL) {
        problem = read_ops();
    }
    if (problem == NULL) {
        problem = plan_tensors();
    }
    return problem;
}

static model_io_t io_of(uint32_t slot, uint32_t index)
{
    static const uint8_t dtypes[] = {
        [TYPE_F32] = MODEL_F32, [TYPE_S32] = MODEL_S32, [TYPE_U8] = MODEL_U8, [TYPE_S16] = MODEL_S16, [TYPE_S8] = MODEL_S8};
    const int32_t *list = (const int32_t *)(const void *)fb_vector(self.subgraph, slot).items;
    const tensor_t *tensor = &self.tensors[list[index]];
    return (model_io_t){
        .data = tensor->data,
        .bytes = tensor_bytes(tensor),
        .dtype = (model_dtype_t)dtypes[tensor->type],
        .scale = tensor_scale(tensor),
        .zero_point = tensor_zero_point(tensor),
    };
}

model_io_t model_input(uint32_t index)
{
    return io_of(SUBGRAPH_INPUTS, index);
}

model_io_t model_output(uint32_t index)
{
    return io_of(SUBGRAPH_OUTPUTS, index);
}

void model_run(void)
{
    for (uint32_t i = 0; i < self.op_count; i++) {
        self.ops[i].kind->eval(&self.ops[i]);
    }
}

void model_run_layers(model_mark_fn mark)
{
    for (uint32_t i = 0; i < self.op_count; i++) {
        self.ops[i].kind->eval(&self.ops[i]);
        mark(i);
    }
}
