// The model card: what the library must know about a model, read from its ONNX file (derain.card in Python).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace derain {

enum class Layout { nhwc, nchw, nhw };
enum class Type { u8, f16, f32 };
enum class Content { bgr, rgb, y, uv, rain };

// An input or output of the graph, batch 1: how its bytes are to be written or read.
struct Port {
    std::string name;
    Layout layout;
    Type type;
    Content content;

    bool is_bgr() const { return content == Content::bgr; }
    // The form in which a tightly packed BGR or RGB frame is the tensor itself.
    bool is_interleaved_u8() const { return layout == Layout::nhwc && type == Type::u8; }
    // Its axes for frames of that size; `rank` of them count.
    std::array<int64_t, 4> shape(int width, int height) const;
    size_t rank() const { return layout == Layout::nhw ? 3 : 4; }
    size_t bytes(int width, int height) const;
};

// Sizes (batch, height, width) that a graph or an engine was made for.
struct Profile {
    std::array<int64_t, 3> min, opt, max;
};

struct Card {
    std::string json;  // the whole document
    std::string name, system, precision;
    std::vector<Port> inputs;  // one picture, or the planes Y and UV of NV12
    // The derained picture and the rain map, or the map alone in the attention part of a model.
    std::vector<Port> outputs;
    int32_t colour;  // derain_colour of NV12 inputs
    int minimum;     // smallest side in pixels
    Profile profile;
    int fixed_height, fixed_width;  // 0: any
    double rain_half;               // the median cell of a rain map at which the rain intensity is one half

    bool takes_nv12() const { return inputs.size() == 2; }
    bool gives_pictures() const { return outputs.size() == 2; }
    const Port &frame() const { return inputs.front(); }
    const Port &derained() const { return outputs.front(); }
    const Port &rain() const { return outputs.back(); }
};

class JsonField;
Profile read_profile(const JsonField &field);

// Validate a card. `origin` is the file it came from, for messages. Throws Error(DERAIN_BAD_MODEL).
Card parse_card(const std::string &json, const std::string &origin);

// The card of an ONNX file. Throws Error(DERAIN_BAD_MODEL).
Card read_card(const std::string &path);

}  // namespace derain
