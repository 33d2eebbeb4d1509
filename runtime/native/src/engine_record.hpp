// The record beside a TensorRT engine, NAME.engine.json (derain.runtime.engine.record in Python): what the engine is,
// and where it belongs. It is read before a byte of the engine reaches TensorRT, which trusts what it is given.
#pragma once

#include "card.hpp"

#include <array>
#include <optional>
#include <string>
#include <vector>

namespace derain {

// What an engine depends on here: TensorRT, the GPU and its driver.
struct Machine {
    std::string tensorrt;           // "10.3.0.26"
    std::string gpu;                // "Orin"
    std::array<int, 2> capability;  // {8, 7}
    std::array<int, 2> cuda;        // the newest that the driver supports; {0, 0} if it does not say
    std::string driver;             // "540.4.0"; empty where the system does not tell

    std::string sm() const { return "SM" + std::to_string(capability[0]) + std::to_string(capability[1]); }
};

// What an engine was built from and on (derain.runtime.engine.key).
struct EngineKey {
    std::string onnx_sha256, precision, toolkit, toolkit_version;
    std::optional<std::string> gpu;
    std::optional<std::array<int, 2>> capability, cuda;
    std::optional<std::string> driver;
    Profile profile;
    std::vector<std::string> capabilities;  // "SM86": built for these, on any machine
    bool hardware_compatible, version_compatible;
};

struct EngineRecord {
    std::string json;  // the whole document
    uint64_t plan_bytes;
    std::string plan_sha256;
    std::optional<Card> card;                // else that of the model file
    std::optional<std::string> onnx;         // name of the model file
    std::optional<EngineKey> key;            // engines of trtexec have none
    std::optional<std::string> toolkit;      // instead: "tensorrt 10.3.0", or "tensorrt 10.3.0 or newer"
    std::optional<std::string> onnx_sha256;  // of the model file, where somebody wrote it down
    bool tested;                             // it has passed a self-test
};

// "edge.engine.json" for "edge.engine".
std::string record_path(const std::string &engine);

// Throws Error(DERAIN_BAD_MODEL): there is none, or it is not one.
EngineRecord read_record(const std::string &engine);
EngineRecord parse_record(const std::string &json, const std::string &path);

// The driver's version in the text of its kernel module, /proc/driver/nvidia/version; empty where it does not tell.
std::string kernel_module_version(const std::string &text);

// Throws Error(DERAIN_BAD_MODEL) that says in which way the engine does not belong to this machine.
void require_machine(const EngineRecord &record, const Machine &machine, const std::string &engine);

// The engine's bytes, after size and checksum were compared with the record. Throws Error(DERAIN_BAD_MODEL).
std::vector<char> read_plan(const std::string &engine, const EngineRecord &record);

// What a self-test found, to be written into the record.
struct SelfTest {
    std::string reference;  // what it was compared with
    double psnr;            // dB; infinite: equal, or no reference
    int width, height;
};

// Note in the record that the engine passed. False if it could not be written, which does no harm.
bool write_self_test(const std::string &engine, const EngineRecord &record, const SelfTest &found);

}  // namespace derain
