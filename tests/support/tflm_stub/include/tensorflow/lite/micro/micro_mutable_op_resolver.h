/* A stand-in for TFLM's header of the same name: it knows RELU and nothing else. */
#pragma once
#include "tensorflow/lite/micro/micro_interpreter.h"

namespace tflite {
template <unsigned int tOpCount>
class MicroMutableOpResolver : public MicroOpResolver {
public:
    TfLiteStatus AddRelu() { return added_++ < tOpCount ? kTfLiteOk : kTfLiteError; }

private:
    unsigned int added_ = 0;
};
} // namespace tflite
