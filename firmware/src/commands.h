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

#endif
