#include "broadcast.h"

void broadcast_steps(const tensor_t *tensor, const tensor_t *output, int32_t step[MAX_RANK])
{
    const int32_t missing = output->rank - tensor->rank; /* axes in front that the tensor lacks */
    int32_t elements = 1;
    for (int32_t axis = output->rank - 1; axis >= 0; axis--) {
        const int32_t size = axis < missing ? 1 : tensor->dims[axis - missing];
        step[axis] = size == 1 ? 0 : elements;
        elements *= size;
    }
}
