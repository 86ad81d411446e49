/*
 * commands.h: the two command sets. Both answer everything but the final `m-ready`.
 */
#ifndef COMMANDS_H
#define COMMANDS_H

#include "wire.h"

/* `rig <verb> ... <crc>`: ours. */
void rig_command(const wire_command_t *command);

/* MLPerf Tiny's lines at start-up and its commands. */
void mlperf_boot(void);
void mlperf_command(const wire_command_t *command);
/* The last window of `infer`: what its two timestamps said. `inferences` is 0 before the first one. */
typedef struct {
    uint32_t inferences;
    uint64_t start_us, end_us;
} mlperf_window_t;
mlperf_window_t mlperf_last_window(void);

#endif
