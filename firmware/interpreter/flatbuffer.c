/* flatbuffer.c: the format is little endian, as the cores are, so items are copied as they lie. */
#include "flatbuffer.h"

#include <string.h>

static uint32_t read_u32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static uint16_t read_u16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* Where the field lies; NULL if the table leaves it out. A table starts with the signed distance back to its vtable:
 * u16 bytes of the vtable, u16 bytes of the table, then one u16 offset per slot. */
static const uint8_t *field(fb_table_t table, uint32_t slot)
{
    if (table == NULL) {
        return NULL;
    }
    const uint8_t *vtable = table - (int32_t)read_u32(table);
    const uint32_t entry = 4 + 2 * slot;
    if (entry >= read_u16(vtable)) {
        return NULL;
    }
    const uint32_t offset = read_u16(vtable + entry);
    return offset == 0 ? NULL : table + offset;
}

fb_table_t fb_root(const uint8_t *buffer)
{
    return buffer + read_u32(buffer);
}

int32_t fb_i32(fb_table_t table, uint32_t slot, int32_t default_value)
{
    const uint8_t *at = field(table, slot);
    return at == NULL ? default_value : (int32_t)read_u32(at);
}

int32_t fb_i8(fb_table_t table, uint32_t slot, int32_t default_value)
{
    const uint8_t *at = field(table, slot);
    return at == NULL ? default_value : (int8_t)*at;
}

float fb_f32(fb_table_t table, uint32_t slot, float default_value)
{
    const uint8_t *at = field(table, slot);
    if (at != NULL) {
        memcpy(&default_value, at, sizeof default_value);
    }
    return default_value;
}

fb_table_t fb_table(fb_table_t table, uint32_t slot)
{
    const uint8_t *at = field(table, slot);
    return at == NULL ? NULL : at + read_u32(at);
}

fb_vector_t fb_vector(fb_table_t table, uint32_t slot)
{
    const uint8_t *at = field(table, slot);
    if (at == NULL) {
        return (fb_vector_t){0, NULL};
    }
    at += read_u32(at);
    return (fb_vector_t){read_u32(at), at + 4};
}

fb_table_t fb_table_at(fb_vector_t vector, uint32_t index)
{
    const uint8_t *at = vector.items + 4 * index;
    return at + read_u32(at);
}

float fb_f32_at(fb_vector_t vector, uint32_t index)
{
    float value;
    memcpy(&value, vector.items + 4 * index, sizeof value);
    return value;
}

int32_t fb_i64_low_at(fb_vector_t vector, uint32_t index)
{
    return (int32_t)read_u32(vector.items + 8 * index);
}
