/*
 * wire.h: bytes to and from the host: text, numbers, hexadecimal, CRC, one command at a time. Knows no verb.
 *
 * The protocol is described in firmware/README.md.
 */
#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    WIRE_COMMAND_BYTES = 600, /* longest command, without its `%` */
    WIRE_CHUNK_BYTES = 256,   /* most data bytes in one command or line */
    WIRE_TOKENS = 6,          /* most tokens of a command, CRC included */
};

/* A command taken apart: the tokens between single spaces. */
typedef struct {
    const char *token[WIRE_TOKENS];
    uint32_t count; /* 0: too long, or too many tokens */
    uint32_t crc; /* of everything before the last space */
} wire_command_t;

/* Waits for the next command. The tokens stay valid until the next call. */
void wire_receive(wire_command_t *command);

/* Digits of a token: false when there is anything else in it, nothing at all, or more than the type holds. */
bool wire_parse_u32(const char *token, uint32_t *value);
/* Exactly `digits` lower or upper case hexadecimal digits and then the end of the token. */
bool wire_parse_hex(const char *token, uint32_t digits, uint32_t *value);
/* The value of one hexadecimal digit, or -1. */
int32_t wire_hex_digit(char c);
bool wire_equal(const char *a, const char *b);

/* CRC-32 as in Ethernet and zlib (reflected polynomial 0xEDB88320) of what `crc` is of and then `byte`; 0 is that of nothing. */
uint32_t wire_crc(uint32_t crc, uint8_t byte);

/* Plain output; `digits` of a hexadecimal number are counted from its low end. */
void wire_char(char c);
void wire_text(const char *text);
void wire_decimal(uint64_t value);
void wire_hex(uint32_t value, uint32_t digits);
/* With three decimals, rounded half away from zero; `nan`, `inf`; magnitudes from 2^32 on print as `inf`. */
void wire_fixed3(float value);
/* "\r\n" */
void wire_end(void);

/* A line of ours: wire_rig_begin("hello") ... wire_rig_decimal("proto", 2) ... wire_rig_end() writes
 * `m-rig-hello proto=2 <crc>\r\n`. wire_rig_key writes ` <key>=`; any plain output may follow it. The CRC goes on from that of the
 * line before, exclusive-or that of the command between them: so it holds all that was said since wire_rig_hear began a session. */
void wire_rig_hear(const wire_command_t *command, bool begins_session);
void wire_rig_begin(const char *verb);
void wire_rig_key(const char *key);
void wire_rig_decimal(const char *key, uint64_t value);
void wire_rig_text(const char *key, const char *value);
void wire_rig_end(void);

#endif
