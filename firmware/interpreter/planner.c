#include "planner.h"

/* Ranks the buffers by falling size; of equal ones the later comes first. */
static void sort_by_size(planned_buffer_t *buffers, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t rank = i;
        while (rank > 0 && buffers[buffers[rank - 1].by_size].bytes <= buffers[i].bytes) {
            buffers[rank].by_size = buffers[rank - 1].by_size;
            rank--;
        }
        buffers[rank].by_size = (uint16_t)i;
    }
}

static int is_alive_with(const planned_buffer_t *a, const planned_buffer_t *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* The lowest offset at which `wanted` fits between the `placed` buffers that are alive with it. */
static uint32_t lowest_offset(const planned_buffer_t *buffers, uint32_t placed, const planned_buffer_t *wanted)
{
    uint32_t offset = 0;
    for (uint32_t rank = 0; rank < placed; rank++) {
        const planned_buffer_t *other = &buffers[buffers[rank].by_offset];
        if (!is_alive_with(other, wanted)) {
            continue;
        }
        if (other->offset >= offset + wanted->bytes) {
            break;
        }
        const uint32_t end = other->offset + other->bytes;
        offset = end > offset ? end : offset;
    }
    return offset;
}

uint32_t plan_greedy(planned_buffer_t *buffers, uint32_t count)
{
    uint32_t plan_bytes = 0;
    sort_by_size(buffers, count);
    for (uint32_t placed = 0; placed < count; placed++) {
        const uint16_t index = buffers[placed].by_size;
        planned_buffer_t *buffer = &buffers[index];
        buffer->offset = lowest_offset(buffers, placed, buffer);

        uint32_t rank = placed;
        while (rank > 0 && buffers[buffers[rank - 1].by_offset].offset > buffer->offset) {
            buffers[rank].by_offset = buffers[rank - 1].by_offset;
            rank--;
        }
        buffers[rank].by_offset = index;

        const uint32_t end = buffer->offset + buffer->bytes;
        plan_bytes = end > plan_bytes ? end : plan_bytes;
    }
    return plan_bytes;
}
