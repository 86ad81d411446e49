/*
 * flatbuffer.h: reads tables and vectors of a flatbuffer where they lie.
 *
 * Nothing is bounds-checked here: the generator has made every read of the interpreter once, with checks, before the bytes
 * came onto the board (codegen/engines/reference_interpreter.py). Scalars may lie at any address; vectors of 32-bit items
 * are known to be aligned.
 */
#ifndef FLATBUFFER_H
#define FLATBUFFER_H

#include <stdint.h>

/* A table; NULL where an optional one is absent. All functions accept NULL and then return the default. */
typedef const uint8_t *fb_table_t;

typedef struct {
    uint32_t length;      /* items */
    const uint8_t *items; /* NULL when the vector is absent */
} fb_vector_t;

fb_table_t fb_root(const uint8_t *buffer);
int32_t fb_i32(fb_table_t table, uint32_t slot, int32_t default_value);
int32_t fb_i8(fb_table_t table, uint32_t slot, int32_t default_value);
float fb_f32(fb_table_t table, uint32_t slot, float default_value);
fb_table_t fb_table(fb_table_t table, uint32_t slot);
fb_vector_t fb_vector(fb_table_t table, uint32_t slot);
/* Item `index` of a vector of tables. */
fb_table_t fb_table_at(fb_vector_t vector, uint32_t index);
/* Item `index` of a vector of float32. */
float fb_f32_at(fb_vector_t vector, uint32_t index);
/* The low 32 bits of item `index` of a vector of int64. */
int32_t fb_i64_low_at(fb_vector_t vector, uint32_t index);

#endif
