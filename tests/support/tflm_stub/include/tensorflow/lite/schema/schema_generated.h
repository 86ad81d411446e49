/* A stand-in for TFLM's header of the same name: the few names that a generated application uses. */
#pragma once
#include <stdint.h>

namespace tflite {
struct Model {
    uint32_t version() const { return 3; }
};
inline const Model *GetModel(const void *buffer) { return static_cast<const Model *>(buffer); }
} // namespace tflite
