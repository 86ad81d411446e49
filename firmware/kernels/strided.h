/*
 * strided.h: where element i of a tensor lies when its axes have strides: what transposing, slicing, padding, reducing and
 * broadcasting have in common.
 */
#ifndef STRIDED_H
#define STRIDED_H

#include <stdint.h>

/* One axis: how many elements, and the distance between them in memory (0 for an axis that is broadcast). */
typedef struct {
    int32_t size;
    int32_t stride;
} axis_t;

/* Offset of element `index` of a tensor whose axes, outermost first, are `axes`. */
static inline int32_t strided_offset(int32_t index, const axis_t *axes, int32_t axis_count)
{
    int32_t offset = 0;

    for (int32_t i = axis_count - 1; i >= 0; i--) {
        offset += index % axes[i].size * axes[i].stride;
        index /= axes[i].size;
    }
    return offset;
}

#endif
