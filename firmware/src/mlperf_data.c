/*
 * mlperf_data.c: inputs as MLPerf Tiny's data sets hold them, and results as its reference implementations tell them.
 *
 * Only in firmware that is built for the benchmark (HIL_MLPERF_DATA): 1 kB that a measurement does not need.
 */
#ifdef HIL_MLPERF_DATA

#include "mlperf_data.h"

#include <stddef.h>

#include "bench.h"
#include "model.h"
#include "wire.h"

/* What the bytes of `db` are: those of the input tensor, or pixels from 0 to 255, or little-endian float32 values. */
typedef enum { TENSOR, PIXELS, FLOATS } form_t;

/* Models of the benchmark by how their names start. The runner knows them by this name, and its data sets hold `form`. */
typedef struct {
    const char *name;
    form_t form;
    bool reconstructs; /* the result is how far the output is from the input */
} benchmark_t;

static const benchmark_t benchmarks[] = {
    {"ad01", FLOATS, true},   {"ic01", PIXELS, false},  {"ic02", PIXELS, false},   {"kws01", TENSOR, false},
    {"vww01", PIXELS, false}, {"sww01", TENSOR, false}, {"strww01", TENSOR, false},
};

static float *floats; /* what `db` brought, in the form FLOATS */

static bool starts_with(const char *text, const char *start)
{
    while (*start != '\0' && *text == *start) {
        text++;
        start++;
    }
    return *start == '\0';
}

/* The benchmark that the model is one of, or one without a name. Conversions are from and to one int8 tensor. */
static benchmark_t benchmark(void)
{
    bool converts = model_info.input_count == 1 && model_input(0).dtype == MODEL_S8;
    for (uint32_t i = 0; i < sizeof benchmarks / sizeof benchmarks[0]; i++) {
        if (starts_with(model_info.name, benchmarks[i].name)) {
            benchmark_t found = benchmarks[i];
            if (!converts) {
                found.form = TENSOR;
            }
            found.reconstructs = found.reconstructs && converts && model_output(0).dtype == MODEL_S8 &&
                                 model_output(0).bytes == model_input(0).bytes;
            return found;
        }
    }
    return (benchmark_t){NULL, TENSOR, false};
}

/* The int8 of a real value: rounded half away from zero, cut off at the ends of the type. */
static uint8_t quantised(float value, model_io_t io)
{
    float steps = value / io.scale;
    if (!(steps > -512.0f)) { /* a NaN, too */
        steps = -512.0f;
    }
    if (steps > 512.0f) {
        steps = 512.0f;
    }
    int32_t whole = (int32_t)steps;
    float rest = steps - (float)whole; /* exact */
    whole += (rest >= 0.5f) - (rest <= -0.5f) + io.zero_point;
    return (uint8_t)(whole < INT8_MIN ? INT8_MIN : whole > INT8_MAX ? INT8_MAX : whole);
}

const char *mlperf_data_model(void)
{
    const char *known = benchmark().name;
    return known != NULL ? known : model_info.name;
}

uint32_t mlperf_data_bytes(void)
{
    return bench_in_bytes() * (benchmark().form == FLOATS ? (uint32_t)sizeof(float) : 1);
}

void mlperf_data_begin(void)
{
    floats = benchmark().form == FLOATS ? bench_spare_ram(mlperf_data_bytes()) : NULL;
}

bool mlperf_data_has_room(void)
{
    return benchmark().form != FLOATS || floats != NULL;
}

void mlperf_data_byte(uint32_t offset, uint8_t byte)
{
    form_t form = benchmark().form;
    if (form != FLOATS) {
        bench_write_input(offset, form == PIXELS ? byte ^ 0x80 : byte); /* 0 becomes -128 */
        return;
    }
    ((uint8_t *)floats)[offset] = byte;
    for (uint32_t i = 0; offset + 1 == mlperf_data_bytes() && i < bench_in_bytes(); i++) {
        bench_write_input(i, quantised(floats[i], model_input(0)));
    }
}

/* Of a model that reconstructs its input: the mean of (output - input)^2 against the floats that `db` brought. */
bool mlperf_data_results(void)
{
    if (!benchmark().reconstructs) {
        return false;
    }
    model_io_t input = model_input(0);
    model_io_t output = model_output(0);
    float sum = 0.0f;
    for (uint32_t i = 0; i < output.bytes; i++) {
        if (floats == NULL || quantised(floats[i], input) != bench_read_input(i)) {
            wire_text("e-[No result: the inputs did not come by db]\r\n");
            return true;
        }
        float difference = output.scale * (float)((int8_t)output.data[i] - output.zero_point) - floats[i];
        sum += difference * difference;
    }
    wire_text("m-results-[");
    wire_fixed3(sum / (float)output.bytes);
    wire_text("]\r\n");
    return true;
}

#else

typedef int mlperf_data_is_empty; /* C wants something in every file */

#endif
