/*
 * wire.c: see wire.h. No printf, no heap; one buffer for the command.
 */
#include "wire.h"

#include "port.h"

static char command_text[WIRE_COMMAND_BYTES + 1];
static uint32_t said_crc; /* of the session so far */
static uint32_t line_crc; /* of it and of what was written since wire_rig_begin */

uint32_t wire_crc(uint32_t crc, uint8_t byte)
{
    crc = ~crc ^ byte;
    for (uint32_t bit = 0; bit < 8; bit++) {
        crc = crc >> 1 ^ (0xEDB88320u & -(crc & 1u)); /* no branch: what is said does not show in the cycles of what is run next */
    }
    return ~crc;
}

void wire_receive(wire_command_t *command)
{
    uint32_t length = 0;
    bool fits = true;
    for (;;) {
        char c = (char)port_uart_read();
        if (c == '%') {
            break;
        }
        if (length < WIRE_COMMAND_BYTES) {
            command_text[length++] = c != '\0' ? c : '?'; /* or what is behind it would be passed over */
        } else {
            fits = false;
        }
    }
    command_text[length] = '\0';

    command->count = 0;
    command->crc = 0;
    if (!fits) {
        return;
    }
    command->token[command->count++] = command_text;
    uint32_t crc = 0;
    for (uint32_t i = 0; i < length; i++) {
        if (command_text[i] == ' ') {
            command->crc = crc;
        }
        crc = wire_crc(crc, (uint8_t)command_text[i]);
        if (command_text[i] == ' ') {
            if (command->count == WIRE_TOKENS) {
                command->count = 0;
                return;
            }
            command_text[i] = '\0';
            command->token[command->count++] = &command_text[i + 1];
        }
    }
}

bool wire_parse_u32(const char *token, uint32_t *value)
{
    uint64_t sum = 0;
    if (*token == '\0') {
        return false;
    }
    for (; *token != '\0'; token++) {
        if (*token < '0' || *token > '9') {
            return false;
        }
        sum = sum * 10 + (uint32_t)(*token - '0');
        if (sum > UINT32_MAX) {
            return false;
        }
    }
    *value = (uint32_t)sum;
    return true;
}

int32_t wire_hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

bool wire_parse_hex(const char *token, uint32_t digits, uint32_t *value)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < digits; i++) {
        int32_t digit = wire_hex_digit(token[i]);
        if (digit < 0) {
            return false;
        }
        sum = sum << 4 | (uint32_t)digit;
    }
    *value = sum;
    return token[digits] == '\0';
}

bool wire_equal(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

/* Not inlined: it is called from everywhere, and the flash that the bench takes is counted. */
__attribute__((noinline)) void wire_char(char c)
{
    line_crc = wire_crc(line_crc, (uint8_t)c);
    port_uart_write((uint8_t)c);
}

void wire_text(const char *text)
{
    for (; *text != '\0'; text++) {
        wire_char(*text);
    }
}

/* Divides by ten, from the highest 16 bits to the lowest, and returns the remainder: libgcc's 64-bit division is 700 bytes. */
static uint32_t take_digit(uint64_t *value)
{
    uint64_t quotient = 0;
    uint32_t rest = 0;
    for (uint32_t i = 0; i < 4; i++) {
        rest = rest << 16 | (uint32_t)(*value >> 48);
        *value <<= 16;
        quotient = quotient << 16 | rest / 10;
        rest %= 10;
    }
    *value = quotient;
    return rest;
}

void wire_decimal(uint64_t value)
{
    char digits[20]; /* of 2^64 - 1 */
    uint32_t count = 0;
    do {
        digits[count++] = (char)('0' + take_digit(&value));
    } while (value != 0);
    while (count > 0) {
        wire_char(digits[--count]);
    }
}

void wire_hex(uint32_t value, uint32_t digits)
{
    while (digits > 0) {
        digits--;
        wire_char("0123456789abcdef"[value >> (4 * digits) & 0xF]);
    }
}

void wire_fixed3(float value)
{
    if (value != value) {
        wire_text("nan");
        return;
    }
    if (value < 0.0f) {
        wire_char('-');
        value = -value;
    }
    if (value >= 4294967296.0f) {
        wire_text("inf");
        return;
    }
    /* The whole part is taken off first, which is exact, so that only the last of the three decimals sees a rounding. */
    uint32_t whole = (uint32_t)value;
    uint32_t thousandths = (uint32_t)((value - (float)whole) * 1000.0f + 0.5f);
    wire_decimal((uint64_t)whole + thousandths / 1000);
    wire_char('.');
    wire_char((char)('0' + thousandths / 100 % 10));
    wire_char((char)('0' + thousandths / 10 % 10));
    wire_char((char)('0' + thousandths % 10));
}

void wire_end(void)
{
    wire_text("\r\n");
}

void wire_rig_hear(const wire_command_t *command, bool begins_session)
{
    said_crc = (begins_session ? 0 : said_crc) ^ command->crc;
}

void wire_rig_begin(const char *verb)
{
    line_crc = said_crc;
    wire_text("m-rig-");
    wire_text(verb);
}

void wire_rig_key(const char *key)
{
    wire_char(' ');
    wire_text(key);
    wire_char('=');
}

void wire_rig_decimal(const char *key, uint64_t value)
{
    wire_rig_key(key);
    wire_decimal(value);
}

void wire_rig_text(const char *key, const char *value)
{
    wire_rig_key(key);
    wire_text(value);
}

void wire_rig_end(void)
{
    said_crc = line_crc; /* everything before the space that comes now */
    wire_char(' ');
    wire_hex(said_crc, 8);
    wire_end();
}
