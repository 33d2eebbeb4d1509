// libFuzzer on what describes a model: the first byte chooses a whole ONNX file, a bare card, or an engine's record.
#include "inputs.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    constexpr void (*readers[])(const uint8_t *, size_t) = {try_model_file, try_card, try_record};
    readers[data[0] % 3](data + 1, size - 1);
    return 0;
}
