// ONNX files for tests of the card reader: a graph without content, and metadata.
#pragma once

#include <string>

inline std::string varint(size_t value) {
    std::string bytes;
    for (; value >= 0x80; value >>= 7) bytes += static_cast<char>((value & 0x7F) | 0x80);
    return bytes + static_cast<char>(value);
}

inline std::string field(int number, const std::string &content) {
    return varint(static_cast<size_t>(number) << 3 | 2) + varint(content.size()) + content;
}

// ModelProto: ir_version 10, graph "g", metadata_props {key: value}.
inline std::string model_bytes(const std::string &key, const std::string &value) {
    return varint(1 << 3) + varint(10) + field(7, field(2, "g")) + field(14, field(1, key) + field(2, value));
}

inline const std::string kCard =
    R"({"schema_version":1,"name":"standin","system":"acgf","variant":"edge","part":"whole","inputs":[{"name":"frame",)"
    R"("layout":"NHWC","dtype":"uint8","channels":"BGR","value_range":[0.0,255.0]}],"outputs":[{"name":"derained",)"
    R"("layout":"NHWC","dtype":"uint8","channels":"BGR","value_range":[0.0,255.0]},{"name":"attention","layout":"NHW",)"
    R"("dtype":"float32","channels":"attention","value_range":[0.0,1.0]}],"attention":"learned","geometry":)"
    R"({"multiple_of":1,"minimum":2,"receptive_field":3,"tiling":"sound","tiling_reason":""},"profile":{"min":[1,1,64],)"
    R"("opt":[1,48,64],"max":[1,4096,64]},"opset":18,"precision":{"kind":"float32","calibration":null},"licence":"none"})";
