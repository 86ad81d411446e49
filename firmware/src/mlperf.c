/*
 * mlperf.c: MLPerf Tiny's device protocol, so that its runner can drive the board unchanged.
 *
 * Replies follow the runner's expectations: the boot lines, `m-...` per command, `m-ready` last (written by main.c). Performance
 * mode, which serves accuracy too, unless HIL_MLPERF_ENERGY is defined: then a timestamp is a falling edge of the trigger pin.
 */
#include <stddef.h>

#include "bench.h"
#include "commands.h"
#include "mlperf_data.h"
#include "model.h"
#include "port.h"

enum { DEFAULT_INFERENCES = 1, DEFAULT_WARM_UPS = 10, ECHOED_CHARS = 32 };

static uint32_t db_expected, db_received; /* bytes of the running `db load` */
static mlperf_window_t last_window;

/* Microseconds in 64 bits: the chip's timer wraps after 71 minutes, of which one is noticed per call. */
static uint64_t lap_us(void)
{
    static uint32_t last, wraps;
    uint32_t now = port_coarse_us();
    if (now < last) {
        wraps++;
    }
    last = now;
    return (uint64_t)wraps << 32 | now;
}

#ifdef HIL_MLPERF_ENERGY
enum { EDGE_US = 100 }; /* how long the pin stays low; the benchmark asks for 1 us */

static uint64_t stamp(void)
{
    port_uart_flush();
    uint64_t us = lap_us();
    port_trigger(0);
    while (lap_us() - us < EDGE_US) {
    }
    port_trigger(1);
    return us;
}
#else
static uint64_t stamp(void)
{
    uint64_t us = lap_us();
    wire_text("m-lap-us-");
    wire_decimal(us);
    wire_end();
    return us;
}
#endif

static void timestamp(const wire_command_t *command)
{
    (void)command;
    (void)stamp();
}

static void name(const wire_command_t *command)
{
    (void)command;
    wire_text("m-name-dut-[" HIL_BOARD "]\r\n");
}

static void profile(const wire_command_t *command)
{
    (void)command;
    wire_text("m-profile-[ULPMark for tinyML Firmware V0.0.1]\r\nm-model-[");
    wire_text(mlperf_data_model());
    wire_text("]\r\n");
}

static void help(const wire_command_t *command)
{
    (void)command;
    wire_text("name timestamp profile db infer results rig\r\n");
}

static void results(const wire_command_t *command)
{
    (void)command;
    if (!bench_outputs_valid()) {
        wire_text("e-[No inference yet]\r\n");
        return;
    }
    if (mlperf_data_results()) {
        return;
    }
    const char *separator = "m-results-[";
    for (uint32_t index = 0; index < model_info.output_count; index++) {
        model_io_t io = model_output(index);
        uint32_t width = io.dtype == MODEL_S8 || io.dtype == MODEL_U8 ? 1 : io.dtype == MODEL_S16 ? 2 : 4;
        for (uint32_t i = 0; i < io.bytes / width; i++) {
            const void *at = io.data + i * width;
            float value;
            switch (io.dtype) {
            case MODEL_S8:
                value = *(const int8_t *)at;
                break;
            case MODEL_U8:
                value = *(const uint8_t *)at;
                break;
            case MODEL_S16:
                value = *(const int16_t *)at;
                break;
            case MODEL_S32:
                value = (float)*(const int32_t *)at;
                break;
            default:
                value = *(const float *)at;
                break;
            }
            if (io.dtype != MODEL_F32) {
                value = io.scale * (value - (float)io.zero_point);
            }
            wire_text(separator);
            wire_fixed3(value);
            separator = ",";
        }
    }
    wire_text("]\r\n");
}

/* In performance mode the trigger pin is high while the inferences run; in energy mode its falling edges are timestamps. */
static void begin_window(void)
{
    port_uart_flush();
#ifndef HIL_MLPERF_ENERGY
    port_trigger(1);
#endif
}

static void end_window(void)
{
#ifndef HIL_MLPERF_ENERGY
    port_trigger(0);
#endif
}

static void infer(const wire_command_t *command)
{
    uint32_t count = DEFAULT_INFERENCES;
    uint32_t warm_ups = DEFAULT_WARM_UPS;
    if ((command->count > 1 && !wire_parse_u32(command->token[1], &count)) ||
        (command->count > 2 && !wire_parse_u32(command->token[2], &warm_ups))) {
        wire_text("e-[infer takes two numbers]\r\n");
        return;
    }
    if (db_received != db_expected) {
        wire_text("e-[Inputs incomplete: ");
        wire_decimal(db_received);
        wire_text(" of ");
        wire_decimal(db_expected);
        wire_text(" bytes]\r\n");
        return;
    }
    if (count == 0 || warm_ups > UINT32_MAX - count || !bench_inputs_ready(count + warm_ups)) {
        wire_text(count == 0 ? "e-[Inferences must be more than 0]\r\n"
                             : "e-[Load the inputs before each infer 1 0]\r\n");
        return;
    }

    wire_text("m-warmup-start-");
    wire_decimal(warm_ups);
    wire_end();
    for (uint32_t i = 0; i < warm_ups; i++) {
        bench_infer();
    }
    wire_text("m-warmup-done\r\nm-infer-start-");
    wire_decimal(count);
    wire_end();
    port_uart_flush();

    last_window.inferences = count;
    last_window.start_us = stamp();
    begin_window();
    for (uint32_t i = 0; i < count; i++) {
        bench_infer();
    }
    end_window();
    last_window.end_us = stamp();
    wire_text("m-infer-done\r\n");
    results(command);
}

static void db_load(const wire_command_t *command)
{
    uint32_t wanted = mlperf_data_bytes();
    uint32_t bytes;
    if (command->count < 3 || !wire_parse_u32(command->token[2], &bytes) || bytes == 0) {
        wire_text("e-[db load needs a number of bytes]\r\n");
        return;
    }
    /* Whatever becomes of this command: the inputs are no longer those of the last one. */
    db_expected = wanted;
    db_received = 0;
    mlperf_data_begin();
    if (bytes != wanted) {
        wire_text("e-[Supplied buffer size of ");
        wire_decimal(bytes);
        wire_text(", should be ");
        wire_decimal(wanted);
        wire_text("]\r\n");
        return;
    }
    if (!mlperf_data_has_room()) {
        wire_text("e-[No room for the inputs as float32]\r\n");
        return;
    }
    wire_text("m-[Expecting ");
    wire_decimal(bytes);
    wire_text(" bytes]\r\n");
}

static void db_print(void)
{
    enum { PER_LINE = 8 };
    for (uint32_t i = 0; i < bench_in_bytes(); i++) {
        if (i % PER_LINE == 0) {
            wire_text(i == 0 ? "m-buffer" : "\r\nm-buffer");
        }
        wire_char('-');
        wire_hex(bench_read_input(i), 2);
    }
    wire_end();
}

static void db_bytes(const char *digits)
{
    if (db_received == db_expected || !mlperf_data_has_room()) {
        wire_text("e-[More bytes than announced]\r\n");
        return;
    }
    /* Digits behind the last byte are disregarded, as the benchmark does. */
    for (; digits[0] != '\0' && db_received != db_expected; digits += 2) {
        int32_t high = wire_hex_digit(digits[0]);
        int32_t low = wire_hex_digit(digits[1]);
        if (digits[1] == '\0') {
            wire_text("e-[Insufficent number of hex digits]\r\n"); /* the benchmark's spelling */
            return;
        }
        if (high < 0 || low < 0) {
            wire_text("e-[Invalid hex digit]\r\n");
            return;
        }
        mlperf_data_byte(db_received, (uint8_t)(high << 4 | low));
        db_received++;
    }
    if (db_received == db_expected) {
        wire_text("m-load-done\r\n");
    }
}

static void db(const wire_command_t *command)
{
    if (command->count < 2) {
        wire_text("e-[db needs load, print or bytes]\r\n");
    } else if (wire_equal(command->token[1], "load")) {
        db_load(command);
    } else if (wire_equal(command->token[1], "print")) {
        db_print();
    } else {
        db_bytes(command->token[1]);
    }
}

mlperf_window_t mlperf_last_window(void)
{
    return last_window;
}

void mlperf_boot(void)
{
#ifdef HIL_MLPERF_ENERGY
    wire_text("m-timestamp-mode-energy\r\n");
#else
    wire_text("m-timestamp-mode-performance\r\n");
#endif
    (void)stamp(); /* in energy mode it leaves the pin high, too */
    wire_text("m-init-done\r\n");
}

typedef struct {
    const char *name;
    void (*answer)(const wire_command_t *command);
} verb_t;

static const verb_t verbs[] = {
    {"name", name},     {"timestamp", timestamp}, {"profile", profile}, {"help", help},
    {"db", db},         {"infer", infer},         {"results", results},
};

void mlperf_command(const wire_command_t *command)
{
    for (uint32_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
        if (wire_equal(command->token[0], verbs[i].name)) {
            verbs[i].answer(command);
            return;
        }
    }
    wire_text("e-[Unknown command: ");
    for (uint32_t i = 0; i < ECHOED_CHARS && command->token[0][i] != '\0'; i++) {
        char c = command->token[0][i];
        wire_char(c > ' ' && c <= '~' ? c : '?');
    }
    wire_text("]\r\n");
}
