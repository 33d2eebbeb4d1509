// libFuzzer on frame descriptors.
#include "inputs.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    try_frame(data, size);
    return 0;
}
