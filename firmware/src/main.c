/*
 * main.c: the bench firmware: start, then one command after another, for ever. Polled; no interrupts.
 */
#include <stddef.h>

#include "bench.h"
#include "commands.h"
#include "cortex_m.h"
#include "model.h"
#include "port.h"
#include "wire.h"

int main(void);

/* One command; `problem` is why the engine cannot run, or NULL. */
static void answer(const wire_command_t *command, const char *problem)
{
    if (command->count == 0) {
        wire_text("e-[Command too long]\r\n");
    } else if (problem != NULL) {
        wire_text("e-[rig model: state: ");
        wire_text(problem);
        wire_text("]\r\n");
    } else if (wire_equal(command->token[0], "rig")) {
        rig_command(command);
    } else {
        mlperf_command(command);
    }
}

int main(void)
{
    port_init();
    cycles_run();
    const char *problem = model_init();
    if (problem == NULL) {
        bench_init();
    }

    mlperf_boot();
    for (;;) {
        wire_text("m-ready\r\n");
        wire_command_t command;
        wire_receive(&command);
        cycles_run();
        answer(&command, problem);
    }
}
