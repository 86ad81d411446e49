/*
 * host_runner.c: a generated model as a filter on the host. Reads the inputs of one inference after another from stdin until
 * it ends, writes the outputs to stdout.
 */
#include <stdbool.h>
#include <stdio.h>

#include "model.h"

static bool read_inputs(void)
{
    for (uint32_t i = 0; i < model_info.input_count; i++) {
        model_io_t input = model_input(i);

        if (fread(input.data, 1, input.bytes, stdin) != input.bytes) {
            return false;
        }
    }
    return true;
}

int main(void)
{
    const char *problem = model_init();

    if (problem != NULL) {
        fprintf(stderr, "model_init: %s\n", problem);
        return 1;
    }
    while (read_inputs()) {
        model_run();
        for (uint32_t i = 0; i < model_info.output_count; i++) {
            model_io_t output = model_output(i);

            fwrite(output.data, 1, output.bytes, stdout);
        }
    }
    return 0;
}
