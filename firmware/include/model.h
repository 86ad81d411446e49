/*
 * model.h: what an engine's generated folder gives the bench firmware.
 *
 * Every engine (tiny, reference, tflm) and firmware/models/echo implement exactly this; the firmware knows nothing else of a
 * model. A model_run cannot fail: sizes were checked when the code was generated.
 */
#ifndef MODEL_H
#define MODEL_H

#include <stdint.h>

/* Constant data of the model: counted as `weights` in the record. */
#define MODEL_WEIGHTS __attribute__((section(".model_weights"), aligned(4)))
/* The same, copied to RAM before main. */
#define MODEL_WEIGHTS_RAM __attribute__((section(".model_weights_ram"), aligned(4)))
/* A constant at another address at which the core sees it, too; hosts that run tests have one address for everything. */
#if defined(__arm__)
#define MODEL_STREAMED(type, array, offset) ((const type *)((uintptr_t)(array) + (offset)))
#else
#define MODEL_STREAMED(type, array, offset) (array)
#endif
/* The arena: behind the stack in RAM, counted as `arena`, not zeroed at start-up. One array, named model_arena. */
#define MODEL_ARENA __attribute__((section(".bss.model_arena"), aligned(16)))

typedef enum { MODEL_S8, MODEL_U8, MODEL_S16, MODEL_S32, MODEL_F32 } model_dtype_t;

/* One input or output tensor. `data` lies in the arena. Inputs may be overwritten by model_run; outputs stay valid until the
 * next input is written. real = scale * (quantised - zero_point). */
typedef struct {
    uint8_t *data;
    uint32_t bytes;
    model_dtype_t dtype;
    float scale;
    int32_t zero_point;
} model_io_t;

typedef struct {
    const char *name;   /* sanitised: [A-Za-z0-9_], at most 48 characters */
    const char *engine; /* "tiny", "reference", "tflm", "none" */
    const char *sha256; /* of the .tflite file, 64 lower-case hexadecimal digits */
    uint32_t input_count;
    uint32_t output_count;
    uint32_t layer_count;
    uint32_t arena_bytes;
} model_info_t;

/* Called after layer `layer` (0-based, in execution order) has finished. */
typedef void (*model_mark_fn)(uint32_t layer);

extern const model_info_t model_info;

/* Once after reset, before anything else. Returns 0, or a message when the engine found at run time that it cannot run (a
 * reference interpreter whose arena is too small); the firmware then answers every command with that message. */
const char *model_init(void);
model_io_t model_input(uint32_t index);  /* index < input_count */
model_io_t model_output(uint32_t index); /* index < output_count */
/* One inference. */
void model_run(void);
/* One inference that calls `mark` after each layer; same bytes as model_run. */
void model_run_layers(model_mark_fn mark);

#endif
