/*
 * mlperf_data.h: what the bytes of MLPerf Tiny's `db` are, and what its `results` tell.
 *
 * They are the bytes of the input tensors and the values of the output tensors, unless HIL_MLPERF_DATA is defined: then, of a model
 * of the benchmark, they are what the benchmark's data sets and reference implementations make of them (mlperf_data.c).
 */
#ifndef MLPERF_DATA_H
#define MLPERF_DATA_H

#include <stdbool.h>
#include <stdint.h>

#ifdef HIL_MLPERF_DATA

/* The name that the benchmark's runner knows the model by. */
const char *mlperf_data_model(void);
/* How many bytes one input has. */
uint32_t mlperf_data_bytes(void);
/* Before the first byte of an input. */
void mlperf_data_begin(void);
/* Whether there is room for the input that begins. */
bool mlperf_data_has_room(void);
/* Byte `offset`, in order; the last one completes the input. */
void mlperf_data_byte(uint32_t offset, uint8_t byte);
/* Whether it has written the results of the last inference, or an error; else they are the output tensors. */
bool mlperf_data_results(void);

#else

#include "bench.h"
#include "model.h"

static inline const char *mlperf_data_model(void)
{
    return model_info.name;
}

static inline uint32_t mlperf_data_bytes(void)
{
    return bench_in_bytes();
}

static inline void mlperf_data_begin(void)
{
}

static inline bool mlperf_data_has_room(void)
{
    return true;
}

static inline void mlperf_data_byte(uint32_t offset, uint8_t byte)
{
    bench_write_input(offset, byte);
}

static inline bool mlperf_data_results(void)
{
    return false;
}

#endif

#endif
