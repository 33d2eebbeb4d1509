// libFuzzer on the model card reader. The first byte chooses between a whole file and a bare card.
#include "inputs.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    (data[0] % 2 == 0 ? try_model_file : try_card)(data + 1, size - 1);
    return 0;
}
