/*
 * As firmware/models/echo, but it takes its time: as many loops as the first four input bytes say, lowest first, if the last
 * one is 0, else 20,000. For tests of what happens while a model runs.
 */
#include "model.h"

#include <stddef.h>
#include <string.h>

enum { BYTES = 64 };

static MODEL_ARENA uint8_t model_arena[2 * BYTES];

const model_info_t model_info = {
    .name = "burn",
    .engine = "none",
    .sha256 = "0000000000000000000000000000000000000000000000000000000000000000",
    .input_count = 1,
    .output_count = 1,
    .layer_count = 1,
    .arena_bytes = sizeof model_arena,
};

const char *model_init(void)
{
    return NULL;
}

model_io_t model_input(uint32_t index)
{
    (void)index;
    return (model_io_t){.data = model_arena, .bytes = BYTES, .dtype = MODEL_S8, .scale = 1.0f, .zero_point = 0};
}

model_io_t model_output(uint32_t index)
{
    (void)index;
    return (model_io_t){.data = model_arena + BYTES, .bytes = BYTES, .dtype = MODEL_S8, .scale = 1.0f, .zero_point = 0};
}

void model_run(void)
{
    uint32_t loops = 20000;
    if (model_arena[BYTES - 1] == 0) {
        memcpy(&loops, model_arena, sizeof loops);
    }
    for (volatile uint32_t i = 0; i < loops; i++) {
    }
    memcpy(model_arena + BYTES, model_arena, BYTES);
}

void model_run_layers(model_mark_fn mark)
{
    model_run();
    mark(0);
}
