// Between frames and the tensors of a graph's ports.
#pragma once

#include "card.hpp"
#include "frame.hpp"

#include <vector>

namespace derain {

// Whether the frame's own planes are the graph's input tensors.
bool is_input(const Frame &frame, const Card &card);

// Fill the input tensors from a frame.
void load_inputs(const Frame &frame, const Card &card, void *const *inputs, std::vector<uint8_t> &scratch);

// Row `y` of a rain map as float32.
void rain_row(const Port &port, const void *tensor, int width, int y, float *out);

// What is mixed into a result before it is stored.
struct Effects {
    float strength = 1;
    float overlay = 0;

    bool none() const { return strength == 1 && overlay == 0; }
};

// An inference's tensors after it has run: what went in, the derained picture, and the rain map.
struct Result {
    const Card &card;
    const void *const *inputs;
    const void *clean;
    const void *rain;
};

// Write a result into a frame. `alpha_from`: the input frame, for BGRA.
void store_result(const Result &result, const Effects &effects, const Frame &frame, const Frame &alpha_from,
                  std::vector<uint8_t> &scratch);

}  // namespace derain
