// The model card: what the library must know about a model, read from its ONNX file (derain.card in Python).
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace derain {

enum class Layout { nhwc, nchw };
enum class Type { u8, f32 };

// A picture port of the graph: how its bytes are to be written or read.
struct PicturePort {
    std::string name;
    Layout layout;
    Type type;
    bool bgr;  // channel order; false: RGB

    // The form in which a tightly packed BGR or RGB frame is the tensor itself.
    bool is_interleaved_u8() const { return layout == Layout::nhwc && type == Type::u8; }
    size_t bytes(int width, int height) const {
        return size_t{3} * static_cast<size_t>(width) * static_cast<size_t>(height) * (type == Type::u8 ? 1 : 4);
    }
};

struct Card {
    std::string json;  // the whole document
    std::string name, system, precision;
    PicturePort frame;              // the one input
    PicturePort derained;           // the picture among the outputs
    std::string attention;          // name of the float32 (1, height, width) output
    int minimum;                    // smallest side in pixels
    int fixed_height, fixed_width;  // 0: any
};

// Validate a card. `origin` is the file it came from, for messages. Throws Error(DERAIN_BAD_MODEL).
Card parse_card(const std::string &json, const std::string &origin);

// The card of an ONNX file. Throws Error(DERAIN_BAD_MODEL).
Card read_card(const std::string &path);

}  // namespace derain
