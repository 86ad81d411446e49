/*
 * port.h: what the bench firmware needs from a chip. One implementation per family: firmware/ports/<family>/port.c.
 *
 * Polled: no interrupts anywhere. Registers are named as in the reference manual and written by us.
 */
#ifndef PORT_H
#define PORT_H

#include <stdint.h>

/* Clocks, flash wait states, caches, UART, trigger pin, cycle counter, coarse timer. Called once, first thing in main. */
void port_init(void);

/* Core clock as configured, in Hz. */
uint32_t port_clock_hz(void);

/* Blocks until a byte arrived on the virtual COM port; returns it. */
uint8_t port_uart_read(void);
/* Blocks until the byte can be handed to the transmitter. */
void port_uart_write(uint8_t byte);
/* Blocks until the last bit has left the pin: nothing may still toggle while a window is measured. */
void port_uart_flush(void);

/* Free-running microseconds since port_init from a chip timer that is not the core's cycle counter; wraps after 2^32 us. */
uint32_t port_coarse_us(void);

/* Trigger pin for energy meters: high exactly while a measured window runs. */
void port_trigger(int high);

/* For calibration: all caches of core and chip on (1) or off (0), both empty afterwards, and so many wait states of the flash
 * more than the clock needs (0 to 7; nothing where no register sets them). */
void port_memory(int caches_on, uint32_t more_wait_states);

/* Never returns: resets the chip. */
_Noreturn void port_reset(void);

#endif
