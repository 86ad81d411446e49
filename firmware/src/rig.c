/*
 * rig.c: the `rig` commands: what the measuring session uses. Verbs and replies: firmware/README.md.
 *
 * Every command carries a CRC; that of a reply line is of the whole session so far. A refusal is
 * e-[rig <verb>: <code>: <text>]; codes: crc, args, state, room, verb.
 */
#include "bench.h"
#include "build_id.h"
#include "commands.h"
#include "image.h"
#include "model.h"
#include "port.h"

enum { PROTOCOL = 2, MAX_ARGUMENTS = 2, LONGEST_VERB = 16 };

static void refuse(const char *verb, const char *code, const char *text)
{
    wire_text("e-[rig ");
    wire_text(verb);
    wire_text(": ");
    wire_text(code);
    wire_text(": ");
    wire_text(text);
    wire_text("]\r\n");
}

/* Its argument makes what follows unlike every other session; the CRCs hold it. */
static void hello(const char *const *argument)
{
    (void)argument;
    wire_rig_begin("hello");
    wire_rig_decimal("proto", PROTOCOL);
    wire_rig_text("board", HIL_BOARD);
    wire_rig_text("engine", model_info.engine);
    wire_rig_text("build", build_id);
    wire_rig_text("model", model_info.sha256);
    wire_rig_decimal("clock_hz", port_clock_hz());
    wire_rig_decimal("in_bytes", bench_in_bytes());
    wire_rig_decimal("out_bytes", bench_out_bytes());
    wire_rig_decimal("layers", model_info.layer_count);
    wire_rig_decimal("arena_bytes", model_info.arena_bytes);
    wire_rig_decimal("store_bytes", bench_store_bytes());
    wire_rig_end();
}

/* Fills the inputs with xorshift32 (Marsaglia 2003, doi:10.18637/jss.v008.i14): each step gives four bytes, lowest first.
 * Returns the CRC of them. */
static uint32_t fill(uint32_t seed)
{
    uint32_t x = seed ^ 0x9E3779B9u; /* so that small seeds differ in many bits */
    if (x == 0) {
        x = 1; /* 0 is the one fixed point of xorshift */
    }
    uint32_t crc = 0;
    for (uint32_t i = 0; i < bench_in_bytes(); i++) {
        if (i % 4 == 0) {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
        }
        uint8_t value = (uint8_t)(x >> (8 * (i % 4)));
        bench_write_input(i, value);
        crc = wire_crc(crc, value);
    }
    return crc;
}

static void rig_hex(const char *key, uint32_t value)
{
    wire_rig_key(key);
    wire_hex(value, 8);
}

static void seed(const char *const *argument)
{
    uint32_t value;
    if (!wire_parse_u32(argument[0], &value)) {
        refuse("seed", "args", "needs a number below 2^32");
        return;
    }
    wire_rig_begin("seed");
    rig_hex("crc", fill(value));
    wire_rig_end();
}

/* What is told of each inference are CRCs: one command, and few bytes, for any number of seeds and outputs of any size. */
static void check(const char *const *argument)
{
    uint32_t first, count;
    if (!wire_parse_u32(argument[0], &first) || !wire_parse_u32(argument[1], &count) || count == 0) {
        refuse("check", "args", "needs a seed and a number above 0");
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t in_crc = fill(first + i);
        uint32_t out_crc = 0;
        bench_infer();
        for (uint32_t at = 0; at < bench_out_bytes(); at++) {
            out_crc = wire_crc(out_crc, bench_read_output(at));
        }
        wire_rig_begin("check");
        wire_rig_decimal("i", i);
        rig_hex("in", in_crc);
        rig_hex("out", out_crc);
        wire_rig_end();
    }
}

static void in(const char *const *argument)
{
    const char *digits = argument[1];
    uint32_t offset;
    uint32_t count = 0;
    while (wire_hex_digit(digits[count]) >= 0) {
        count++;
    }
    if (!wire_parse_u32(argument[0], &offset) || digits[count] != '\0' || count % 2 != 0 || count == 0) {
        refuse("in", "args", "needs an offset and bytes in hex");
        return;
    }
    uint32_t bytes = count / 2;
    if (bytes > WIRE_CHUNK_BYTES || offset > bench_in_bytes() || bytes > bench_in_bytes() - offset) {
        refuse("in", "args", "more than 256 bytes, or beyond the end");
        return;
    }
    for (uint32_t i = 0; i < bytes; i++) {
        int32_t value = wire_hex_digit(digits[2 * i]) << 4 | wire_hex_digit(digits[2 * i + 1]);
        bench_write_input(offset + i, (uint8_t)value);
    }
    wire_rig_begin("in");
    wire_rig_decimal("n", bytes);
    wire_rig_end();
}

static void run(const char *const *argument)
{
    uint32_t repeats;
    if (!wire_parse_u32(argument[0], &repeats) || repeats == 0) {
        refuse("run", "args", "needs a number above 0");
        return;
    }
    if (!bench_inputs_ready(repeats)) {
        refuse("run", "state", "write the inputs before each inference");
        return;
    }
    for (uint32_t i = 0; i < repeats; i++) {
        uint64_t cycles = bench_run();
        wire_rig_begin("run");
        wire_rig_decimal("i", i);
        wire_rig_decimal("cycles", cycles);
        wire_rig_end();
    }
}

static void layers(const char *const *argument)
{
    (void)argument;
    if (!bench_has_layer_table()) {
        refuse("layers", "room", "no free RAM for 8 bytes per layer");
        return;
    }
    if (!bench_inputs_ready(1)) {
        refuse("layers", "state", "write the inputs before each inference");
        return;
    }
    const uint64_t *cycles = bench_run_layers();
    for (uint32_t i = 0; i < model_info.layer_count; i++) {
        wire_rig_begin("layers");
        wire_rig_decimal("i", i);
        wire_rig_decimal("cycles", cycles[i]);
        wire_rig_end();
    }
}

static void out(const char *const *argument)
{
    uint32_t offset, bytes;
    if (!wire_parse_u32(argument[0], &offset) || !wire_parse_u32(argument[1], &bytes)) {
        refuse("out", "args", "needs an offset and a number of bytes");
        return;
    }
    if (bytes > WIRE_CHUNK_BYTES || offset > bench_out_bytes() || bytes > bench_out_bytes() - offset) {
        refuse("out", "args", "more than 256 bytes, or beyond the end");
        return;
    }
    if (!bench_outputs_valid()) {
        refuse("out", "state", "no inference of these inputs yet");
        return;
    }
    wire_rig_begin("out");
    wire_rig_decimal("offset", offset);
    wire_rig_key("hex");
    for (uint32_t i = 0; i < bytes; i++) {
        wire_hex(bench_read_output(offset + i), 2);
    }
    wire_rig_end();
}

static void mem(const char *const *argument)
{
    (void)argument;
    wire_rig_begin("mem");
    wire_rig_decimal("stack_bytes", IMAGE_BYTES(__stack_start, __stack_end));
    wire_rig_decimal("stack_peak_bytes", bench_stack_peak_bytes());
    wire_rig_decimal("data_bytes", IMAGE_BYTES(__data_start, __data_end));
    wire_rig_decimal("bss_bytes", IMAGE_BYTES(__bss_start, __bss_end));
    wire_rig_decimal("arena_bytes", IMAGE_BYTES(__arena_start, __arena_end));
    wire_rig_end();
}

static void time(const char *const *argument)
{
    (void)argument;
    bench_instant_t now = bench_instant();
    wire_rig_begin("time");
    wire_rig_decimal("coarse_us", now.us);
    wire_rig_decimal("cycles", now.cycles);
    wire_rig_end();
}

static void window(const char *const *argument)
{
    (void)argument;
    mlperf_window_t last = mlperf_last_window();
    if (last.inferences == 0) {
        refuse("window", "state", "no infer since reset");
        return;
    }
    wire_rig_begin("window");
    wire_rig_decimal("inferences", last.inferences);
    wire_rig_decimal("start_us", last.start_us);
    wire_rig_decimal("end_us", last.end_us);
    wire_rig_end();
}

static void reset(const char *const *argument)
{
    (void)argument;
    wire_rig_begin("reset");
    wire_rig_end();
    wire_text("m-ready\r\n");
    port_uart_flush();
    port_reset();
}

typedef struct {
    const char *name;
    uint32_t arguments;
    void (*answer)(const char *const *argument);
} verb_t;

static const verb_t verbs[] = {
    {"hello", 1, hello}, {"seed", 1, seed}, {"in", 2, in},   {"run", 1, run},     {"layers", 0, layers},
    {"out", 2, out},     {"mem", 0, mem},   {"time", 0, time}, {"reset", 0, reset}, {"window", 0, window},
    {"check", 2, check},
};

/* Only a verb that reads as one is repeated in a refusal: what arrived may be noise. */
static const char *presentable(const char *verb)
{
    uint32_t length = 0;
    while (verb[length] >= 'a' && verb[length] <= 'z' && length <= LONGEST_VERB) {
        length++;
    }
    return verb[length] == '\0' && length > 0 ? verb : "unknown";
}

void rig_command(const wire_command_t *command)
{
    const char *name = command->count > 1 ? presentable(command->token[1]) : "unknown";
    uint32_t crc;
    if (command->count < 3 || !wire_parse_hex(command->token[command->count - 1], 8, &crc) || crc != command->crc) {
        refuse(name, "crc", "its CRC-32 is wrong");
        return;
    }
    for (uint32_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
        if (wire_equal(command->token[1], verbs[i].name)) {
            if (command->count - 3 != verbs[i].arguments) {
                refuse(name, "args", "wrong number of arguments");
                return;
            }
            wire_rig_hear(command, verbs[i].answer == hello);
            verbs[i].answer(&command->token[2]);
            return;
        }
    }
    refuse(name, "verb", "not known");
}
