#include "onnx_metadata.hpp"

#include "error.hpp"

#include <sys/stat.h>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <optional>

namespace derain {
namespace {

// Field numbers of onnx.proto: ModelProto.graph, ModelProto.metadata_props, StringStringEntryProto.key and .value.
constexpr uint64_t kGraph = 7, kMetadataProps = 14, kKey = 1, kValue = 2;
constexpr uint64_t kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5;
constexpr uint64_t kMaxEntryBytes = 1 << 20;
constexpr int kMaxFields = 10'000;

struct WireError {
    const char *what;
};

// A file read forwards; every length is checked against the end before it is used.
class Reader {
  public:
    Reader(std::ifstream &stream, uint64_t size) : stream_(stream), end_(size) {}

    uint64_t left() const { return end_ - position_; }

    // The next base-128 number; nothing at the end of the file.
    std::optional<uint64_t> varint() {
        uint64_t value = 0;
        for (unsigned shift = 0; shift < 70; shift += 7) {
            if (position_ == end_) {
                if (shift == 0) return std::nullopt;
                throw WireError{"it ends inside a number"};
            }
            const int byte = stream_.get();
            if (byte < 0) throw WireError{"it became shorter while it was read"};
            ++position_;
            if (shift < 64) value |= static_cast<uint64_t>(byte & 0x7F) << shift;
            if ((byte & 0x80) == 0) return value;
        }
        throw WireError{"a number has more than ten bytes"};
    }

    uint64_t length() {
        const auto value = varint();
        if (!value || *value > left()) throw WireError{"a field is longer than the file"};
        return *value;
    }

    std::string bytes(uint64_t count) {
        std::string text(static_cast<size_t>(count), '\0');
        stream_.read(text.data(), static_cast<std::streamsize>(count));
        if (static_cast<uint64_t>(stream_.gcount()) != count) throw WireError{"it became shorter while it was read"};
        position_ += count;
        return text;
    }

    void skip(uint64_t wire_type) {
        uint64_t count = 0;
        if (wire_type == kVarint) {
            if (!varint()) throw WireError{"it ends inside a field"};
            return;
        }
        if (wire_type == kBytes) {
            count = length();
        } else if (wire_type == kFixed64 || wire_type == kFixed32) {
            count = wire_type == kFixed64 ? 8 : 4;
        } else {
            throw WireError{"a wire type does not exist"};
        }
        if (count > left()) throw WireError{"a field is longer than the file"};
        stream_.seekg(static_cast<std::streamoff>(count), std::ios::cur);
        position_ += count;
    }

    // Read the rest as a smaller message of `count` bytes; the caller gets the old end back to restore.
    uint64_t narrow(uint64_t count) {
        const uint64_t old = end_;
        end_ = position_ + count;
        return old;
    }

    void widen(uint64_t old_end) { end_ = old_end; }

  private:
    std::ifstream &stream_;
    uint64_t position_ = 0;
    uint64_t end_;
};

// One StringStringEntryProto into `found`.
void read_entry(Reader &reader, std::map<std::string, std::string> &found) {
    const uint64_t size = reader.length();
    if (size > kMaxEntryBytes) throw WireError{"a metadata entry has more than 1 MiB"};
    const uint64_t outer_end = reader.narrow(size);
    std::string key, value;
    while (const auto tag = reader.varint()) {
        const uint64_t number = *tag >> 3, wire_type = *tag & 7;
        if (wire_type == kBytes && (number == kKey || number == kValue)) {
            (number == kKey ? key : value) = reader.bytes(reader.length());
        } else {
            reader.skip(wire_type);
        }
    }
    reader.widen(outer_end);
    found[key] = std::move(value);
}

}  // namespace

std::map<std::string, std::string> read_metadata(const std::string &path) {
    const std::string fix = "Use an .onnx file written by derain export";
    struct stat status {};
    if (stat(path.c_str(), &status) != 0) {
        throw Error(DERAIN_BAD_MODEL, "Model file '" + path + "' cannot be opened (" + std::strerror(errno) + ")", "",
                    fix);
    }
    if (!S_ISREG(status.st_mode)) {
        throw Error(DERAIN_BAD_MODEL, "'" + path + "' is not a file", "an .onnx file");
    }
    if (status.st_size == 0) throw Error(DERAIN_BAD_MODEL, "Model file '" + path + "' is empty (0 bytes)", "", fix);
    std::ifstream stream(path, std::ios::binary);
    if (!stream) {
        throw Error(DERAIN_BAD_MODEL, "Model file '" + path + "' cannot be opened (" + std::strerror(errno) + ")", "",
                    fix);
    }
    Reader reader(stream, static_cast<uint64_t>(status.st_size));
    std::map<std::string, std::string> found;
    bool has_graph = false;
    try {
        int fields = 0;
        while (const auto tag = reader.varint()) {
            if (++fields > kMaxFields) throw WireError{"it has more than 10000 fields"};
            const uint64_t number = *tag >> 3, wire_type = *tag & 7;
            if (number == 0) throw WireError{"field number 0 does not exist"};
            has_graph = has_graph || (number == kGraph && wire_type == kBytes);
            if (number == kMetadataProps && wire_type == kBytes) {
                read_entry(reader, found);
            } else {
                reader.skip(wire_type);
            }
        }
    } catch (const WireError &error) {
        throw Error(DERAIN_BAD_MODEL, "'" + path + "' is not a whole ONNX file (" + error.what + ")", "", fix);
    }
    if (!has_graph) throw Error(DERAIN_BAD_MODEL, "'" + path + "' is not an ONNX model (it has no graph)", "", fix);
    return found;
}

}  // namespace derain
