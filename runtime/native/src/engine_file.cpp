#include "engine_file.hpp"

#include "error.hpp"
#include "sha256.hpp"

#include <nlohmann/json.hpp>

#include <sys/stat.h>
#include <algorithm>
#include <cstdlib>

namespace derain {
namespace {

constexpr const char *kBuild = "Build it on this machine: derain build MODEL.onnx";

bool exists(const std::string &path) {
    struct stat status {};
    return stat(path.c_str(), &status) == 0;
}

std::string folder_of(const std::string &path) {
    const size_t slash = path.find_last_of('/');
    return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

// "edge" for "models/edge.onnx" without its folder, and the ending.
std::pair<std::string, std::string> stem_and_ending(const std::string &path) {
    const std::string name = path.substr(folder_of(path).size());
    const size_t dot = name.find_last_of('.');
    if (dot == std::string::npos || dot == 0) return {name, ""};
    return {name.substr(0, dot), name.substr(dot)};
}

// The model file that a record names, where it lies beside the engine and is still the same model; else nothing.
std::string model_beside(const std::string &engine, const EngineRecord &record) {
    if (!record.onnx) return "";
    const std::string path = folder_of(engine) + record.onnx->substr(folder_of(*record.onnx).size());
    if (!exists(path)) return "";
    return record.onnx_sha256 && sha256_of_file(path) != *record.onnx_sha256 ? "" : path;
}

// Letters, digits, '_', '.' and '-' stay, and each run of others becomes one '-'.
template <typename Keep>
std::string simplified(const std::string &text, Keep keep) {
    std::string name;
    bool replaced = false;
    for (const char letter : text) {
        const bool kept = keep(letter);
        if (kept || !replaced) name += kept ? letter : '-';
        replaced = !kept;
    }
    return name;
}

bool is_digit_or_lower(char letter) {
    return (letter >= '0' && letter <= '9') || (letter >= 'a' && letter <= 'z');
}

std::string cache_folder() {
    const auto variable = [](const char *name) {
        const char *value = std::getenv(name);
        return std::string(value == nullptr ? "" : value);
    };
    if (std::getenv("DERAIN_CACHE") != nullptr) return variable("DERAIN_CACHE");
    const std::string base = variable("XDG_CACHE_HOME");
    return (base.empty() ? variable("HOME") + "/.cache" : base) + "/derain/engines";
}

// The options of an engine for which nobody asked for special ones, as the Python side writes them.
std::string default_options(const Profile &profile) {
    nlohmann::ordered_json options;
    options["profile"]["min"] = profile.min;
    options["profile"]["opt"] = profile.opt;
    options["profile"]["max"] = profile.max;
    options["capabilities"] = nlohmann::json::array();
    options["workspace_mib"] = nullptr;
    options["optimization_level"] = 3;
    options["dla_core"] = nullptr;
    options["hardware_compatible"] = false;
    options["version_compatible"] = false;
    return options.dump();
}

EngineFile checked(const std::string &path, const std::string &onnx, const std::string &onnx_sha256, const Card &card,
                   const Machine &machine) {
    EngineRecord record = read_record(path);
    if (record.onnx_sha256 && !onnx_sha256.empty() && *record.onnx_sha256 != onnx_sha256) {
        throw Error(DERAIN_BAD_MODEL, "'" + path + "' was built from another model file than '" + onnx + "'", "",
                    kBuild);
    }
    if (record.key && record.key->precision != card.precision) {
        throw Error(
            DERAIN_BAD_MODEL,
            "'" + path + "' computes in " + record.key->precision + ", and the model card asks for " + card.precision,
            "", kBuild);
    }
    require_machine(record, machine, path);
    std::vector<char> plan = read_plan(path, record);
    const std::string model = onnx.empty() ? model_beside(path, record) : onnx;
    return {path, std::move(record), std::move(plan), model};
}

}  // namespace

bool is_engine(const std::string &path) {
    std::string ending = stem_and_ending(path).second;
    for (char &letter : ending) letter = letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter + 32) : letter;
    return ending == ".engine" || ending == ".plan" || ending == ".trt";
}

Card read_model_card(const std::string &path) {
    if (!is_engine(path)) return read_card(path);
    const EngineRecord record = read_record(path);
    if (record.card) return *record.card;
    const std::string onnx = model_beside(path, record);
    if (onnx.empty()) {
        throw Error(DERAIN_BAD_MODEL,
                    "The record of '" + path + "' holds no model card, and its model file '" +
                        record.onnx.value_or("?") + "' is not beside it",
                    "", "Copy the .onnx file beside the engine, or write the script with derain build --script");
    }
    return read_card(onnx);
}

std::string cached_engine(const Card &card, const std::string &onnx_sha256, const Machine &machine) {
    const auto in_name = [](char letter) {
        const bool upper = letter >= 'A' && letter <= 'Z', beyond_ascii = static_cast<unsigned char>(letter) >= 0x80;
        return upper || beyond_ascii || is_digit_or_lower(letter) || letter == '_' || letter == '.' || letter == '-';
    };
    std::string gpu = machine.gpu;
    for (char &letter : gpu) letter = letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter + 32) : letter;
    gpu = simplified(gpu, is_digit_or_lower);
    gpu.erase(0, gpu.find_first_not_of('-'));
    gpu.resize(std::min<size_t>(gpu.find_last_not_of('-') + 1, 40));
    std::string name = simplified(card.name, in_name).substr(0, 60);
    if (name.empty()) name = "model";
    return cache_folder() + "/" + name + "-" + card.precision + "-" + onnx_sha256.substr(0, 8) + "-" +
           sha256(default_options(card.profile)).substr(0, 8) + "-" + gpu + "-tensorrt.engine";
}

EngineFile find_engine(const std::string &model, const std::string &given, const Card &card, const Machine &machine,
                       const std::function<void(derain_log_level, const std::string &)> &log) {
    if (is_engine(model)) return checked(model, "", "", card, machine);
    const std::string onnx_sha256 = sha256_of_file(model);
    if (!given.empty()) return checked(given, model, onnx_sha256, card, machine);
    const std::string beside = folder_of(model) + stem_and_ending(model).first + ".engine";
    const std::string cached = cached_engine(card, onnx_sha256, machine);
    std::string reasons;
    for (const std::string &path : {beside, cached}) {
        if (!exists(path)) continue;
        try {
            EngineFile found = checked(path, model, onnx_sha256, card, machine);
            if (!reasons.empty()) log(DERAIN_LOG_WARNING, reasons + " '" + path + "' is used.");
            return found;
        } catch (const Error &error) {
            reasons += (reasons.empty() ? "" : " ") + std::string(error.what());
        }
    }
    if (!reasons.empty()) throw Error(DERAIN_BAD_MODEL, reasons.substr(0, reasons.size() - 1));
    throw Error(DERAIN_BAD_MODEL, "There is no engine for '" + model + "'", "'" + beside + "' or '" + cached + "'",
                kBuild);
}

}  // namespace derain
