/*
 * cortex_m_host.h: stands in for firmware/src/cortex_m.h where the bench firmware is built for the host; included before all
 * else. The harness has the counter, and a main of its own.
 */
#ifndef CORTEX_M_H
#define CORTEX_M_H

#include <stdint.h>

#define main firmware_main
/* The host's linker has symbols of these names. */
#define __data_start host_data_start
#define __bss_start host_bss_start

uint32_t cycles_now(void);

static inline void cortex_m_sync(void)
{
}

static inline void cycles_run(void)
{
}

#endif
