// Read metadata_props of an ONNX file without a protobuf library, as derain.onnx_metadata does in Python.
#pragma once

#include <map>
#include <string>

namespace derain {

// metadata_props as key -> value; empty when the file has none. Only the outermost message is walked: the graph with
// its weights is skipped by its length. Throws Error(DERAIN_BAD_MODEL) for a file that is missing, empty or not ONNX.
std::map<std::string, std::string> read_metadata(const std::string &path);

}  // namespace derain
