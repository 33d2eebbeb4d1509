#include "card.hpp"

#include "error.hpp"
#include "onnx_metadata.hpp"

#include <nlohmann/json.hpp>

namespace derain {
namespace {

using Json = nlohmann::json;

constexpr const char *kCardKey = "derain.card";
constexpr int64_t kSchemaVersion = 1;
constexpr size_t kMaxCardBytes = 256 * 1024;
constexpr size_t kMaxText = 4000;
constexpr int64_t kMaxSide = 65536;
constexpr const char *kExportAgain = "Export the model again with: derain export";

// Reads typed fields and knows where it is, so that a message can name the field.
class Field {
  public:
    Field(const Json &value, std::string where, const std::string &origin)
        : value_(value), where_(std::move(where)), origin_(origin) {}

    [[noreturn]] void reject(const std::string &why) const {
        throw Error(DERAIN_BAD_MODEL, "The model card in '" + origin_ + "' is not valid at " + where_ + ": " + why, "",
                    kExportAgain);
    }

    Field operator[](const char *key) const {
        if (!value_.is_object()) reject("it is no object");
        const auto found = value_.find(key);
        const std::string where = where_ == "the document" ? key : where_ + "." + key;
        if (found == value_.end()) Field(value_, where, origin_).reject("the field is missing");
        return {*found, where, origin_};
    }

    Field operator[](size_t index) const { return {value_.at(index), where_ + "." + std::to_string(index), origin_}; }

    size_t length(size_t least, size_t most) const {
        if (!value_.is_array() || value_.size() < least || value_.size() > most) {
            reject("it is no list of " + std::to_string(least) + " to " + std::to_string(most) + " entries");
        }
        return value_.size();
    }

    std::string text() const {
        if (!value_.is_string()) reject("it is no text");
        const auto &text = value_.get_ref<const std::string &>();
        if (text.size() > 4 * kMaxText) reject("the text is too long");
        if (text.find('\0') != std::string::npos) reject("the text contains a zero byte");
        return text;
    }

    std::string one_of(std::initializer_list<const char *> allowed) const {
        const std::string found = text();
        for (const char *one : allowed) {
            if (found == one) return found;
        }
        reject("'" + found.substr(0, 40) + "' is not known here");
    }

    int integer(int64_t least, int64_t most) const {
        const bool whole =
            value_.is_number_integer() && (!value_.is_number_unsigned() || value_.get<uint64_t>() <= INT64_MAX);
        if (!whole || value_.get<int64_t>() < least || value_.get<int64_t>() > most) {
            reject("it is no integer from " + std::to_string(least) + " to " + std::to_string(most));
        }
        return static_cast<int>(value_.get<int64_t>());
    }

  private:
    const Json &value_;
    std::string where_;
    const std::string &origin_;
};

PicturePort picture(const Field &port) {
    const std::string layout = port["layout"].one_of({"NHWC", "NCHW"});
    const std::string type = port["dtype"].one_of({"uint8", "float32"});
    const std::string channels = port["channels"].one_of({"BGR", "RGB"});
    return {port["name"].text(), layout == "NHWC" ? Layout::nhwc : Layout::nchw, type == "uint8" ? Type::u8 : Type::f32,
            channels == "BGR"};
}

void read_ports(const Field &document, Card &card, const std::string &origin) {
    const Field inputs = document["inputs"], outputs = document["outputs"];
    const std::string part = document["part"].text();
    if (part != "whole" || inputs.length(1, 4) != 1 || outputs.length(1, 4) != 2) {
        throw Error(DERAIN_BAD_MODEL,
                    "'" + origin + "' holds the '" + part + "' part of '" + card.name + "' with " +
                        std::to_string(inputs.length(1, 4)) + " inputs",
                    "a whole deraining graph: one BGR or RGB picture in, a picture and a rain map out",
                    "Export the model without --part and with --frames bgr");
    }
    card.frame = picture(inputs[size_t{0}]);
    const size_t map = outputs[size_t{0}]["channels"].text() == "attention" ? 0 : 1;
    card.derained = picture(outputs[1 - map]);
    outputs[map]["channels"].one_of({"attention"});
    outputs[map]["layout"].one_of({"NHW"});
    outputs[map]["dtype"].one_of({"float32"});
    card.attention = outputs[map]["name"].text();
}

void read_sizes(const Field &document, Card &card) {
    card.minimum = document["geometry"]["minimum"].integer(1, kMaxSide);
    const Field least = document["profile"]["min"], most = document["profile"]["max"];
    if (least.length(3, 3) != most.length(3, 3)) return;
    const auto fixed = [&](size_t axis) {
        const int side = least[axis].integer(1, kMaxSide);
        return side == most[axis].integer(1, kMaxSide) ? side : 0;
    };
    card.fixed_height = fixed(1);
    card.fixed_width = fixed(2);
}

}  // namespace

Card parse_card(const std::string &json, const std::string &origin) {
    if (json.size() > kMaxCardBytes) {
        throw Error(DERAIN_BAD_MODEL,
                    "The model card in '" + origin + "' has " + std::to_string(json.size()) + " bytes",
                    "at most " + std::to_string(kMaxCardBytes));
    }
    // The parser needs no stack for nested lists and objects, so depth cannot hurt.
    const Json parsed = Json::parse(json, nullptr, /*allow_exceptions=*/false);
    if (parsed.is_discarded()) {
        throw Error(DERAIN_BAD_MODEL, "The model card in '" + origin + "' is not JSON", "", kExportAgain);
    }
    const Field document(parsed, "the document", origin);
    const int version = document["schema_version"].integer(1, INT32_MAX);
    if (version > kSchemaVersion) {
        throw Error(
            DERAIN_BAD_MODEL, "The model card in '" + origin + "' has schema version " + std::to_string(version),
            std::to_string(kSchemaVersion) + " or older", "The file was made by a newer derain: update libderain");
    }
    Card card{};
    card.json = json;
    card.name = document["name"].text();
    card.system = document["system"].text();
    card.precision = document["precision"]["kind"].one_of({"float32", "float16", "int8"});
    read_ports(document, card, origin);
    read_sizes(document, card);
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
