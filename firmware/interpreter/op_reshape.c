/* op_reshape.c: RESHAPE, SQUEEZE and EXPAND_DIMS: the same bytes in another shape. Every tensor has its own place, as in TFLM. */
#include "ops.h"

#include <stddef.h>
#include <string.h>

static const char *prepare(op_t *op)
{
    (void)op;
    return NULL;
}

static void eval(const op_t *op)
{
    memcpy(op_output(op)->data, op_input(op, 0)->data, tensor_bytes(op_output(op)));
}

const op_kind_t op_reshape = {0, prepare, eval};
