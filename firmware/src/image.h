/*
 * image.h: where the linker put things (ld/firmware.ld). Only the addresses of these symbols mean something.
 */
#ifndef IMAGE_H
#define IMAGE_H

#include <stdint.h>

extern uint32_t __stack_start[], __stack_end[]; /* the stack grows down from __stack_end */
extern uint32_t __data_start[], __data_end[], __data_load[];
extern uint32_t __weights_ram_start[], __weights_ram_end[], __weights_ram_load[];
extern uint32_t __bss_start[], __bss_end[];
extern uint8_t __arena_start[], __arena_end[];
extern uint8_t __ram_end[];

/* Bytes from one symbol up to another. */
#define IMAGE_BYTES(start, end) ((uint32_t)((uintptr_t)(end) - (uintptr_t)(start)))

/* What the whole stack is filled with at reset; a word that still holds it was never used. */
#define STACK_PAINT 0xC0DEC0DEu

#endif
