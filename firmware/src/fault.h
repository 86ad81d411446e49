/*
 * fault.h: the handler of every exception.
 */
#ifndef FAULT_H
#define FAULT_H

/* Prints `e-[fault ...]` with the registers that tell where and why, then resets the chip. */
void fault_handler(void);

#endif
