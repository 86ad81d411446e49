/* library.c: what compilers make: recursion, calls through pointers, switches, newlib's memory and text functions. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint32_t program(void);

static uint32_t ackermann(uint32_t m, uint32_t n)
{
    return m == 0 ? n + 1 : ackermann(m - 1, n == 0 ? 1 : ackermann(m, n - 1));
}

static uint32_t fibonacci(uint32_t n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static int by_value(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t kind(uint32_t x)
{
    switch (x % 11) {
    case 0: return x * 3;
    case 1: return x ^ 0x55;
    case 2: return x + 1000;
    case 3: return x >> 3;
    case 4: return ~x;
    case 5: return x * x;
    case 7: return x - 9;
    case 8: return x / 7;
    default: return 1;
    }
}

/* The heap that newlib asks for: none. */
void *_sbrk(ptrdiff_t bytes);
void *_sbrk(ptrdiff_t bytes)
{
    (void)bytes;
    return (void *)-1;
}

static int32_t numbers[500];
static uint8_t bytes[700], other[700];

uint32_t program(void)
{
    uint32_t (*const volatile functions[])(uint32_t) = {fibonacci, kind};
    uint32_t sum = ackermann(2, 9) + functions[0](15);
    for (uint32_t i = 0; i < 500; i++) {
        sum = sum * 1664525 + 1013904223;
        numbers[i] = (int32_t)sum >> 8;
        sum += functions[1](i);
    }
    qsort(numbers, 500, sizeof numbers[0], by_value);
    for (uint32_t i = 0; i < 500; i++) {
        sum = 33 * sum + (uint32_t)numbers[i];
    }
    for (uint32_t at = 0; at < 9; at++) {
        for (uint32_t length = 0; length < 70; length++) {
            memset(bytes + at, (int)(at + length), length);
            memcpy(other + 3, bytes + at, length + 5);
            memmove(other + at, other + 2, length);
            sum += (uint32_t)memcmp(other, bytes, length) + other[length];
        }
    }
    char text[64];
    sum += (uint32_t)snprintf(text, sizeof text, "%d %08lx %s %c", numbers[7], (unsigned long)sum, "text", 'x');
    for (uint32_t i = 0; text[i] != '\0'; i++) {
        sum = 33 * sum + (uint8_t)text[i];
    }
    const uint64_t wide = (uint64_t)sum * 0x123456789abcdefu;
    return sum + (uint32_t)(wide / 1000003u) + (uint32_t)strlen(text);
}
