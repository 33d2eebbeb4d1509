#include "slot.hpp"

#include "clock.hpp"
#include "error.hpp"
#include "tensor.hpp"

namespace derain {
namespace {

Effects effects_of(const derain_request &request) {
    const auto fraction = [](float value) { return value >= 0 && value <= 1; };
    if (!fraction(request.strength) || !fraction(request.overlay)) {
        throw Error(DERAIN_BAD_ARGUMENT,
                    "The request has strength " + std::to_string(request.strength) + " and overlay " +
                        std::to_string(request.overlay),
                    "0 to 1 for each");
    }
    return {request.strength, request.overlay};
}

}  // namespace

double Slot::derain(const derain_request &request, const Frame &rainy, const Frame *clean) {
    const int width = rainy.width(), height = rainy.height();
    const Effects effects = effects_of(request);
    const auto room = [&](std::vector<uint8_t> &memory, const Port &port) {
        memory.resize(port.bytes(width, height));
        return memory.data();
    };
    Tensors tensors{width, height, {}, {}};
    // Network and result must not share memory; frames that do are copied first.
    if ((clean == nullptr || !rainy.overlaps(*clean)) && is_input(rainy, card_)) {
        for (size_t i = 0; i < card_.inputs.size(); ++i) tensors.inputs[i] = rainy.row(static_cast<int>(i), 0);
    } else {
        void *inputs[2] = {};
        for (size_t i = 0; i < card_.inputs.size(); ++i) {
            tensors.inputs[i] = inputs[i] = room(inputs_[i], card_.inputs[i]);
        }
        load_inputs(rainy, card_, inputs, scratch_);
    }
    const bool in_place = clean != nullptr && effects.none() && card_.derained().is_interleaved_u8() &&
                          clean->is_packed(card_.derained().is_bgr());
    if (card_.gives_pictures()) tensors.outputs[0] = in_place ? clean->data() : room(clean_, card_.derained());
    const size_t row_bytes = static_cast<size_t>(width) * sizeof(float);
    const size_t rain_stride = request.rain_stride == 0 ? row_bytes : request.rain_stride;
    const bool map_in_place = request.rain != nullptr && rain_stride == row_bytes && card_.rain().type == Type::f32;
    void *&map = tensors.outputs[card_.outputs.size() - 1];
    map = map_in_place ? static_cast<void *>(request.rain) : room(map_, card_.rain());
    const auto before = Clock::now();
    lane_->infer(tensors);
    const double inference = seconds_since(before);
    if (clean != nullptr && !in_place) {
        store_result({card_, tensors.inputs, tensors.outputs[0], map}, effects, *clean, rainy, scratch_);
    }
    if (request.rain != nullptr && !map_in_place) {
        auto *rows = reinterpret_cast<uint8_t *>(request.rain);
        for (int y = 0; y < height; ++y) {
            auto *row = reinterpret_cast<float *>(rows + static_cast<size_t>(y) * rain_stride);
            rain_row(card_.rain(), map, width, y, row);
        }
    }
    return inference;
}

}  // namespace derain
