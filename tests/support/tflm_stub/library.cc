/* The library of the stand-in: RELU of 32 values, in an arena of at least 1,040 bytes. Like TFLM it pulls in what newlib's
 * abort and operator delete need of a system. */
#include <cstdlib>

#include "tensorflow/lite/micro/micro_interpreter.h"

extern "C" void DebugLog(const char *format, ...);

namespace tflite {

enum { VALUES = 32, NEEDED_BYTES = 1040 };

MicroInterpreter::MicroInterpreter(const Model *, const MicroOpResolver &, uint8_t *tensor_arena, size_t tensor_arena_size,
                                   MicroResourceVariables *, MicroProfilerInterface *profiler, bool)
    : arena_(tensor_arena), arena_bytes_(tensor_arena_size), profiler_(profiler)
{
}

MicroInterpreter::~MicroInterpreter() {}

TfLiteStatus MicroInterpreter::AllocateTensors()
{
    if (arena_ == nullptr) {
        ::operator delete(arena_);
        abort();
    }
    if (arena_bytes_ < NEEDED_BYTES) {
        DebugLog("too small");
        return kTfLiteError;
    }
    for (int i = 0; i < 2; i++) {
        tensors_[i].type = kTfLiteInt8;
        tensors_[i].data.data = arena_ + i * VALUES;
        tensors_[i].params.scale = 0.5f;
        tensors_[i].params.zero_point = 0;
        tensors_[i].bytes = VALUES;
    }
    return kTfLiteOk;
}

TfLiteStatus MicroInterpreter::Invoke()
{
    const uint32_t event = profiler_->BeginEvent("RELU");
    const int8_t *in = static_cast<const int8_t *>(tensors_[0].data.data);
    int8_t *out = static_cast<int8_t *>(tensors_[1].data.data);
    for (int i = 0; i < VALUES; i++) {
        out[i] = in[i] > 0 ? in[i] : int8_t(0);
    }
    profiler_->EndEvent(event);
    return kTfLiteOk;
}

TfLiteTensor *MicroInterpreter::input(size_t)
{
    return &tensors_[0];
}

TfLiteTensor *MicroInterpreter::output(size_t)
{
    return &tensors_[1];
}

} // namespace tflite
