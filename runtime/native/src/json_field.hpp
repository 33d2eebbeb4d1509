// JSON from outside, read field by field: every value is checked, and a message names the field that is wrong.
#pragma once

#include "error.hpp"

#include <nlohmann/json.hpp>

#include <cmath>
#include <initializer_list>
#include <string>

namespace derain {

// What a document is, for messages: "The model card in 'edge.onnx'", and what to do if it cannot be read.
struct DocumentName {
    std::string title, fix;
};

// A value and where it is. Refers to the document and its name, which must stay.
class JsonField {
  public:
    JsonField(const nlohmann::json &value, std::string where, const DocumentName &name)
        : value_(value), where_(std::move(where)), name_(name) {}

    [[noreturn]] void reject(const std::string &why) const {
        throw Error(DERAIN_BAD_MODEL, name_.title + " is not valid at " + where() + ": " + why, "", name_.fix);
    }

    JsonField operator[](const char *key) const {
        if (!value_.is_object()) reject("it is no object");
        const auto found = value_.find(key);
        const std::string path = where_.empty() ? key : where_ + "." + key;
        if (found == value_.end()) JsonField(value_, path, name_).reject("the field is missing");
        return {*found, path, name_};
    }

    // A field that may be missing, which is then null.
    JsonField optional(const char *key) const {
        static const nlohmann::json null;
        if (value_.is_object() && !value_.contains(key)) return {null, where_ + "." + key, name_};
        return (*this)[key];
    }

    JsonField operator[](size_t index) const { return {value_.at(index), where_ + "." + std::to_string(index), name_}; }

    bool is_null() const { return value_.is_null(); }
    const nlohmann::json &value() const { return value_; }

    size_t length(size_t least, size_t most) const {
        if (!value_.is_array() || value_.size() < least || value_.size() > most) {
            reject("it is no list of " + std::to_string(least) + " to " + std::to_string(most) + " entries");
        }
        return value_.size();
    }

    std::string text(size_t most = 16'000) const {
        if (!value_.is_string()) reject("it is no text");
        const auto &text = value_.get_ref<const std::string &>();
        if (text.size() > most) reject("the text is too long");
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

    int64_t integer(int64_t least, int64_t most) const {
        const bool whole =
            value_.is_number_integer() && (!value_.is_number_unsigned() || value_.get<uint64_t>() <= INT64_MAX);
        if (!whole || value_.get<int64_t>() < least || value_.get<int64_t>() > most) {
            reject("it is no integer from " + std::to_string(least) + " to " + std::to_string(most));
        }
        return value_.get<int64_t>();
    }

    double positive() const {
        const double found = value_.is_number() ? value_.get<double>() : 0;
        if (!(found > 0) || !std::isfinite(found)) reject("it is no finite number above 0");
        return found;
    }

    bool truth() const {
        if (!value_.is_boolean()) reject("it is neither true nor false");
        return value_.get<bool>();
    }

  private:
    std::string where() const { return where_.empty() ? "the document" : where_; }

    const nlohmann::json &value_;
    std::string where_;
    const DocumentName &name_;
};

// The document of a text; it must be an object of at most that schema version. Throws Error(DERAIN_BAD_MODEL).
inline nlohmann::json parse_document(const std::string &text, size_t most_bytes, int64_t schema_version,
                                     const DocumentName &name) {
    if (text.size() > most_bytes) {
        throw Error(DERAIN_BAD_MODEL, name.title + " has " + std::to_string(text.size()) + " bytes",
                    "at most " + std::to_string(most_bytes));
    }
    // The parser needs no stack for nested lists and objects, so depth cannot hurt.
    nlohmann::json parsed = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (parsed.is_discarded()) throw Error(DERAIN_BAD_MODEL, name.title + " is not JSON", "", name.fix);
    const int64_t version = JsonField(parsed, "", name)["schema_version"].integer(1, INT32_MAX);
    if (version > schema_version) {
        throw Error(DERAIN_BAD_MODEL, name.title + " has schema version " + std::to_string(version),
                    std::to_string(schema_version) + " or older",
                    "The file was made by a newer derain: update libderain");
    }
    return parsed;
}

}  // namespace derain
