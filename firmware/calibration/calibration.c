/*
 * calibration.c: the micro-benchmarks in the place of a model: an inference runs those that the input names, the output holds
 * their cycles.
 *
 * Input: two 32-bit words, the first benchmark and how many. Output: for each benchmark of the table the cycles of its short and
 * of its long routine, 0 for one that has not run. What is subtracted from what is the host's business (hil/calibrate.py).
 */
#include "calibration.h"

#include <stddef.h>
#include <string.h>

#include "model.h"
#include "port.h"

enum { SELECTION_WORDS = 2, LENGTHS = 2, DWT_CYCCNT = 0xE0001004 };

MODEL_ARENA uint8_t model_arena[CALIBRATION_ARENA_BYTES];

static uint32_t selection[SELECTION_WORDS];
static uint32_t cycles[CALIBRATION_BENCHMARKS][LENGTHS];

const model_info_t model_info = {
    .name = "calibration",
    .engine = "none",
    .sha256 = "0000000000000000000000000000000000000000000000000000000000000000",
    .input_count = 1,
    .output_count = 1,
    .layer_count = 0,
    .arena_bytes = sizeof model_arena,
};

/* Whether the memory that a routine is copied to has room for it. */
static bool fits(const calibration_routine_t *routine)
{
    bool is_core_code = routine->copy_to == CALIBRATION_CORE_CODE;
    return routine->copy_to == 0 ||
           routine->bytes <= (is_core_code ? CALIBRATION_CORE_CODE_BYTES : CALIBRATION_ROOM_BYTES);
}

const char *model_init(void)
{
    const uint8_t *end = model_arena + sizeof model_arena;
    if (CALIBRATION_ARENA_FROM < (uintptr_t)model_arena || CALIBRATION_ARENA_TO > (uintptr_t)end) {
        return "the arena does not hold the memory that the micro-benchmarks use";
    }
    for (uint32_t i = 0; i < CALIBRATION_BENCHMARKS; i++) {
        for (uint32_t length = 0; length < LENGTHS; length++) {
            if (!fits(&calibration_routines[i][length])) {
                return "a routine is larger than the memory that it should be copied to";
            }
        }
    }
    return NULL;
}

model_io_t model_input(uint32_t index)
{
    (void)index;
    return (model_io_t){.data = (uint8_t *)selection, .bytes = sizeof selection, .dtype = MODEL_S32, .scale = 1.0f};
}

model_io_t model_output(uint32_t index)
{
    (void)index;
    return (model_io_t){.data = (uint8_t *)cycles, .bytes = sizeof cycles, .dtype = MODEL_S32, .scale = 1.0f};
}

/* The routine where it has to run: copied there, or, where the same bytes show at another address, at that address. The caches
 * are off meanwhile, and empty when they are switched on. */
static calibration_routine_fn placed(const calibration_routine_t *routine)
{
    port_memory(0, 0);
    if (routine->copy_to != 0) {
        memcpy((void *)routine->copy_to, (const void *)routine->linked_at, routine->bytes);
    }
    port_memory((int)routine->caches_on, routine->more_wait_states);
    return (calibration_routine_fn)(routine->run_at | 1u); /* bit 0: Thumb */
}

static uint32_t measure(const calibration_routine_t *routine)
{
    calibration_routine_fn run = placed(routine);
    uint32_t counted = 0;
    for (uint32_t i = 0; i < routine->runs; i++) {
        counted = run(routine->turns, (uint8_t *)routine->data, (volatile uint32_t *)DWT_CYCCNT);
    }
    return counted;
}

void model_run(void)
{
    uint32_t first = selection[0], count = selection[1];
    for (uint32_t i = first; i < CALIBRATION_BENCHMARKS && i - first < count; i++) {
        for (uint32_t length = 0; length < LENGTHS; length++) {
            cycles[i][length] = measure(&calibration_routines[i][length]);
        }
    }
    port_memory(1, 0);
}

void model_run_layers(model_mark_fn mark)
{
    (void)mark;
    model_run();
}
