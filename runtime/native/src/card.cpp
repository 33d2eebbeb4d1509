#include "card.hpp"

#include "json_field.hpp"
#include "onnx_metadata.hpp"

namespace derain {
namespace {

constexpr const char *kCardKey = "derain.card";
constexpr int64_t kSchemaVersion = 1;
constexpr size_t kMaxCardBytes = 256 * 1024;
constexpr int64_t kMaxSide = 65536;
constexpr double kUsualRainHalf = 0.006;  // derain.rain_intensity.USUAL_HALF
constexpr const char *kExportAgain = "Export the model again with: derain export";

// The position of a text in a list, which is the value of the enumeration.
template <typename Enumeration>
Enumeration choice(const JsonField &field, std::initializer_list<const char *> names) {
    const std::string found = field.one_of(names);
    int index = 0;
    for (const char *name : names) {
        if (found == name) break;
        ++index;
    }
    return static_cast<Enumeration>(index);
}

Port read_port(const JsonField &port) {
    return {port["name"].text(), choice<Layout>(port["layout"], {"NHWC", "NCHW", "NHW"}),
            choice<Type>(port["dtype"], {"uint8", "float16", "float32"}),
            choice<Content>(port["channels"], {"BGR", "RGB", "Y", "UV", "attention"})};
}

std::vector<Port> read_ports(const JsonField &list) {
    std::vector<Port> ports;
    for (size_t i = 0; i < list.length(1, 2); ++i) ports.push_back(read_port(list[i]));
    return ports;
}

bool is_picture(const Port &port) {
    return (port.content == Content::bgr || port.content == Content::rgb) && port.layout != Layout::nhw;
}

bool is_nv12(const std::vector<Port> &ports) {
    return ports.size() == 2 && ports[0].content == Content::y && ports[0].layout == Layout::nhw &&
           ports[0].type == Type::u8 && ports[1].content == Content::uv && ports[1].is_interleaved_u8();
}

void read_graph(const JsonField &document, Card &card, const std::string &origin) {
    const std::string part = document["part"].text();
    if (part != "whole" && part != "attention") {
        throw Error(DERAIN_BAD_MODEL, "'" + origin + "' holds the '" + part + "' part of '" + card.name + "'",
                    "a whole deraining graph, or its attention part", "Export the model without --tiled");
    }
    card.inputs = read_ports(document["inputs"]);
    card.outputs = read_ports(document["outputs"]);
    if (card.inputs.size() == 2 && card.inputs[0].content == Content::uv) std::swap(card.inputs[0], card.inputs[1]);
    if (card.outputs[0].content == Content::rain) std::swap(card.outputs.front(), card.outputs.back());
    if (!is_nv12(card.inputs) && !(card.inputs.size() == 1 && is_picture(card.frame()))) {
        document["inputs"].reject("expected one BGR or RGB picture, or the uint8 planes Y and UV of NV12");
    }
    const bool map =
        card.rain().content == Content::rain && card.rain().layout == Layout::nhw && card.rain().type != Type::u8;
    const bool picture =
        part == "whole" ? card.gives_pictures() && is_picture(card.derained()) : !card.gives_pictures();
    if (!map || !picture) {
        document["outputs"].reject(part == "whole" ? "expected a BGR or RGB picture and a rain map of floats"
                                                   : "expected a rain map of floats");
    }
    if (card.takes_nv12()) {
        card.colour = choice<int32_t>(document["yuv"], {"bt601-limited", "bt601-full", "bt709-limited", "bt709-full"});
    }
}

void read_sizes(const JsonField &document, Card &card) {
    card.minimum = static_cast<int>(document["geometry"]["minimum"].integer(1, kMaxSide));
    card.profile = read_profile(document["profile"]);
    const auto fixed = [&](size_t axis) {
        return static_cast<int>(card.profile.min[axis] == card.profile.max[axis] ? card.profile.min[axis] : 0);
    };
    card.fixed_height = fixed(1);
    card.fixed_width = fixed(2);
}

}  // namespace

std::array<int64_t, 4> Port::shape(int width, int height) const {
    if (layout == Layout::nhw) return {1, height, width, 0};
    if (content == Content::uv) return {1, height / 2, width / 2, 2};
    if (layout == Layout::nhwc) return {1, height, width, 3};
    return {1, 3, height, width};
}

size_t Port::bytes(int width, int height) const {
    const auto axes = shape(width, height);
    size_t count = type == Type::u8 ? 1 : type == Type::f16 ? 2 : 4;
    for (size_t axis = 0; axis < rank(); ++axis) count *= static_cast<size_t>(axes[axis]);
    return count;
}

Profile read_profile(const JsonField &field) {
    const auto shape = [&](const char *name) {
        const JsonField sides = field[name];
        sides.length(3, 3);
        return std::array<int64_t, 3>{sides[size_t{0}].integer(1, kMaxSide), sides[size_t{1}].integer(1, kMaxSide),
                                      sides[size_t{2}].integer(1, kMaxSide)};
    };
    const Profile profile = {shape("min"), shape("opt"), shape("max")};
    for (size_t axis = 0; axis < 3; ++axis) {
        if (profile.min[axis] > profile.opt[axis] || profile.opt[axis] > profile.max[axis]) {
            field.reject("min <= opt <= max does not hold");
        }
    }
    return profile;
}

Card parse_card(const std::string &json, const std::string &origin) {
    const DocumentName name = {"The model card in '" + origin + "'", kExportAgain};
    const nlohmann::json parsed = parse_document(json, kMaxCardBytes, kSchemaVersion, name);
    const JsonField document(parsed, "", name);
    Card card{};
    card.json = json;
    card.name = document["name"].text();
    card.system = document["system"].text();
    card.precision = document["precision"]["kind"].one_of({"float32", "float16", "float8", "int8"});
    read_graph(document, card, origin);
    read_sizes(document, card);
    const JsonField half = document.optional("rain_half");
    card.rain_half = half.is_null() ? kUsualRainHalf : half.positive();
    return card;
}

Card read_card(const std::string &path) {
    const auto metadata = read_metadata(path);
    const auto found = metadata.find(kCardKey);
    if (found == metadata.end()) {
        throw Error(DERAIN_BAD_MODEL, "'" + path + "' is an ONNX file without a derain model card",
                    std::string("metadata under the key '") + kCardKey + "'", "Use a file written by derain export");
    }
    return parse_card(found->second, path);
}

}  // namespace derain
