// Between frames and the tensors of a graph's picture ports.
#pragma once

#include "card.hpp"
#include "frame.hpp"

#include <vector>

namespace derain {

// Fill a tensor of the port's form from a frame.
void load_tensor(const Frame &frame, const PicturePort &port, void *tensor, std::vector<uint8_t> &scratch);

// Row `y` of a picture tensor as 8-bit pixels.
void tensor_row(const PicturePort &port, const void *tensor, int width, int height, int y, bool bgr, uint8_t *out);

// What is mixed into a result before it is stored.
struct Effects {
    float strength = 1;
    float overlay = 0;

    bool none() const { return strength == 1 && overlay == 0; }
};

// A result and where it came from: tensors of the two picture ports, and the rain map.
struct Result {
    const PicturePort &rainy_port;
    const void *rainy;
    const PicturePort &clean_port;
    const void *clean;
    const float *rain;
};

// Write a result into a frame. `alpha_from`: the input frame, for BGRA.
void store_result(const Result &result, const Effects &effects, const Frame &frame, const Frame &alpha_from,
                  std::vector<uint8_t> &scratch);

}  // namespace derain
