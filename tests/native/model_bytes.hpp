// Files for tests of their readers: an ONNX graph without content and its metadata, and the record of an engine.
#pragma once

#include "sha256.hpp"

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

// The record beside an engine with those bytes, as derain build writes it.
inline std::string record_text(const std::string &plan) {
    return R"({"schema_version":1,"made_by":"derain","plan_bytes":)" + std::to_string(plan.size()) +
           R"(,"plan_sha256":")" + derain::sha256(plan) + R"(","card":)" + kCard + R"(,"onnx":"edge.onnx","key":)" +
           R"({"onnx_sha256":")" + derain::sha256("onnx") + R"(","precision":"float32","options":{"profile":)" +
           R"({"min":[1,16,16],"opt":[1,48,64],"max":[1,96,128]},"capabilities":[],"workspace_mib":null,)" +
           R"("optimization_level":3,"dla_core":null,"hardware_compatible":false,"version_compatible":false},)" +
           R"("toolkit":"tensorrt","toolkit_version":"10.3.0","gpu":"Orin","capability":[8,7],"cuda":[12,6]},)" +
           R"("toolkit":null,"made":"","seconds":1.5,"self_test":null})";
}
