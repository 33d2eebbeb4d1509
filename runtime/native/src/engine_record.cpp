#include "engine_record.hpp"

#include "json_field.hpp"
#include "sha256.hpp"

#include <sys/stat.h>
#include <unistd.h>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <sstream>

namespace derain {
namespace {

constexpr int64_t kSchemaVersion = 1;
constexpr int64_t kMaxPlanBytes = int64_t{8} << 30;
constexpr size_t kMaxRecordBytes = 512 * 1024;
constexpr const char *kBuildAgain = "Build it again on this machine: derain build MODEL.onnx";
// The newest GPUs that "hardware compatible" engines run on begin here: Ampere.
constexpr std::array<int, 2> kAmpere = {8, 0};

std::string digest(const JsonField &field) {
    const std::string text = field.text();
    if (text.size() != 64 || text.find_first_not_of("0123456789abcdef") != std::string::npos) {
        field.reject("it is no SHA-256 of 64 hexadecimal digits");
    }
    return text;
}

std::optional<std::string> optional_text(const JsonField &field) {
    return field.is_null() ? std::nullopt : std::optional(field.text());
}

std::optional<std::array<int, 2>> optional_pair(const JsonField &field) {
    if (field.is_null()) return std::nullopt;
    field.length(2, 2);
    return std::array<int, 2>{static_cast<int>(field[size_t{0}].integer(0, 10'000)),
                              static_cast<int>(field[size_t{1}].integer(0, 10'000))};
}

bool optional_truth(const JsonField &field) {
    return !field.is_null() && field.truth();
}

EngineKey read_key(const JsonField &field) {
    const JsonField options = field["options"], capabilities = options.optional("capabilities");
    EngineKey key{};
    key.onnx_sha256 = digest(field["onnx_sha256"]);
    key.precision = field["precision"].one_of({"float32", "float16", "float8", "int8"});
    key.toolkit = field["toolkit"].one_of({"tensorrt", "tensorrt-rtx"});
    key.toolkit_version = field["toolkit_version"].text();
    key.gpu = optional_text(field["gpu"]);
    key.capability = optional_pair(field["capability"]);
    key.cuda = optional_pair(field["cuda"]);
    key.driver = optional_text(field.optional("driver"));
    key.profile = read_profile(options["profile"]);
    for (size_t i = 0; !capabilities.is_null() && i < capabilities.length(0, 64); ++i) {
        key.capabilities.push_back(capabilities[i].text());
    }
    key.hardware_compatible = optional_truth(options.optional("hardware_compatible"));
    key.version_compatible = optional_truth(options.optional("version_compatible"));
    return key;
}

// "10.13.3.9" as {10, 13, 3, 9}; stops at the first part that is not a number.
std::vector<int> version_numbers(const std::string &version) {
    std::vector<int> numbers;
    for (size_t at = 0; at < version.size();) {
        const size_t end = std::min(version.find('.', at), version.size());
        const std::string part = version.substr(at, end - at);
        if (part.empty() || part.size() > 6 || part.find_first_not_of("0123456789") != std::string::npos) break;
        numbers.push_back(std::stoi(part));
        at = end + 1;
    }
    return numbers;
}

// Whether two versions are the same in all numbers that both tell: JetPack's Python says 10.3.0 of 10.3.0.30.
bool same_version(const std::string &one, const std::string &other) {
    auto a = version_numbers(one), b = version_numbers(other);
    const size_t common = std::min(a.size(), b.size());
    a.resize(common);
    b.resize(common);
    return common >= 3 && a == b;
}

// Whether an engine for `built` and later versions of the same major one runs with `here`.
bool not_older(const std::string &here, const std::string &built) {
    const auto now = version_numbers(here), then = version_numbers(built);
    return !now.empty() && !then.empty() && now[0] == then[0] && (then <= now || same_version(here, built));
}

std::string dotted(const std::array<int, 2> &version) {
    return std::to_string(version[0]) + "." + std::to_string(version[1]);
}

// In which ways an engine with that key does not belong to the machine; empty if it does.
std::string differences(const EngineKey &key, const Machine &machine) {
    std::string found;
    const auto add = [&](const std::string &reason) { found += (found.empty() ? "" : "; ") + reason; };
    const bool version_fits = key.version_compatible ? not_older(machine.tensorrt, key.toolkit_version)
                                                     : same_version(machine.tensorrt, key.toolkit_version);
    if (key.toolkit != "tensorrt") {
        add("it was built with " + key.toolkit + ", and tensorrt is to run it");
    } else if (!version_fits) {
        add("it was built with tensorrt " + key.toolkit_version + ", and this machine has " + machine.tensorrt);
    }
    if (!key.capabilities.empty()) {
        if (std::find(key.capabilities.begin(), key.capabilities.end(), machine.sm()) == key.capabilities.end()) {
            std::string built;
            for (const std::string &one : key.capabilities) built += (built.empty() ? "" : ", ") + one;
            add("it was built for compute capability " + built + ", and " + machine.gpu + " is " + machine.sm());
        }
        return found;
    }
    const bool fits_all = key.hardware_compatible && machine.capability >= kAmpere;
    if (!fits_all && key.gpu && (*key.gpu != machine.gpu || key.capability != machine.capability)) {
        const auto sm = key.capability.value_or(std::array<int, 2>{});
        add("it was built on " + *key.gpu + " (SM" + std::to_string(sm[0]) + std::to_string(sm[1]) +
            "), and this machine has " + machine.gpu + " (" + machine.sm() + ")");
    }
    if (key.version_compatible) return found;
    if (key.cuda && machine.cuda != std::array<int, 2>{} && *key.cuda != machine.cuda) {
        add("it was built with a driver for CUDA " + dotted(*key.cuda) + ", and this one is for " +
            dotted(machine.cuda));
    } else if (key.driver && !machine.driver.empty() && *key.driver != machine.driver) {
        add("it was built with driver " + *key.driver + ", and this machine has " + machine.driver);
    }
    return found;
}

// "tensorrt 10.3.0" or "tensorrt 10.3.0 or newer", as the scripts around trtexec write it.
bool toolkit_fits(const std::string &built, const Machine &machine) {
    const std::string name = "tensorrt ", newer = " or newer";
    if (built.compare(0, name.size(), name) != 0) return false;
    std::string version = built.substr(name.size());
    const bool open_ended =
        version.size() > newer.size() && version.compare(version.size() - newer.size(), newer.size(), newer) == 0;
    if (open_ended) version.resize(version.size() - newer.size());
    return open_ended ? not_older(machine.tensorrt, version) : same_version(machine.tensorrt, version);
}

}  // namespace

std::string record_path(const std::string &engine) {
    return engine + ".json";
}

EngineRecord parse_record(const std::string &json, const std::string &path) {
    const DocumentName name = {"The record '" + path + "'", kBuildAgain};
    const nlohmann::json parsed = parse_document(json, kMaxRecordBytes, kSchemaVersion, name);
    const JsonField document(parsed, "", name);
    EngineRecord record{};
    record.json = json;
    document["made_by"].one_of({"derain", "trtexec"});
    record.plan_bytes = static_cast<uint64_t>(document["plan_bytes"].integer(1, kMaxPlanBytes));
    record.plan_sha256 = digest(document["plan_sha256"]);
    const JsonField card = document.optional("card"), key = document.optional("key");
    if (!card.is_null()) record.card = parse_card(card.value().dump(), path);
    if (!key.is_null()) record.key = read_key(key);
    record.onnx = optional_text(document.optional("onnx"));
    record.toolkit = optional_text(document.optional("toolkit"));
    const JsonField sum = document.optional("onnx_sha256");
    if (record.key) {
        record.onnx_sha256 = record.key->onnx_sha256;
    } else if (!sum.is_null()) {
        record.onnx_sha256 = digest(sum);
    }
    record.tested = !document.optional("self_test").is_null();
    return record;
}

EngineRecord read_record(const std::string &engine) {
    const std::string path = record_path(engine);
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        throw Error(
            DERAIN_BAD_MODEL, "'" + engine + "' has no record beside it",
            "'" + path + "', which derain build and its trtexec scripts write",
            "Copy both files together; or, if trtexec built it by hand: derain build MODEL.onnx --adopt " + engine);
    }
    std::string text(kMaxRecordBytes + 1, '\0');
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<size_t>(file.gcount()));
    return parse_record(text, path);
}

void require_machine(const EngineRecord &record, const Machine &machine, const std::string &engine) {
    std::string found;
    if (record.key) {
        found = differences(*record.key, machine);
    } else if (record.toolkit && !toolkit_fits(*record.toolkit, machine)) {
        found = "it was built with " + *record.toolkit + ", and this machine has tensorrt " + machine.tensorrt;
    }
    if (found.empty()) return;
    throw Error(DERAIN_BAD_MODEL, "'" + engine + "' does not fit this machine: " + found, "",
                "Build it here with derain build, or with its script again");
}

std::string kernel_module_version(const std::string &text) {
    std::istringstream words(text.substr(std::min(text.size(), text.find("Kernel Module"))));
    std::string line, word;
    std::getline(words, line);
    words = std::istringstream(line);
    while (words >> word) {
        const bool numbers = word.find_first_not_of("0123456789.") == std::string::npos;
        if (numbers && word.find('.') != std::string::npos) return word;
    }
    return "";
}

std::vector<char> read_plan(const std::string &engine, const EngineRecord &record) {
    struct stat status {};
    std::ifstream file(engine, std::ios::binary);
    if (!file || stat(engine.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) {
        throw Error(DERAIN_BAD_MODEL, "The engine file '" + engine + "' cannot be read", "", kBuildAgain);
    }
    const auto size = static_cast<uint64_t>(status.st_size);
    if (size < record.plan_bytes) {
        throw Error(DERAIN_BAD_MODEL, "'" + engine + "' was cut short: it has " + std::to_string(size) + " bytes",
                    std::to_string(record.plan_bytes), kBuildAgain);
    }
    std::vector<char> plan(static_cast<size_t>(record.plan_bytes));
    file.read(plan.data(), static_cast<std::streamsize>(plan.size()));
    Sha256 sum;
    sum.update(plan.data(), static_cast<size_t>(file.gcount()));
    if (size != record.plan_bytes || sum.finish() != record.plan_sha256) {
        throw Error(DERAIN_BAD_MODEL,
                    "'" + engine + "' is not the engine that its record describes: its " + std::to_string(size) +
                        " bytes have another checksum",
                    "", kBuildAgain);
    }
    return plan;
}

bool write_self_test(const std::string &engine, const EngineRecord &record, const SelfTest &found) {
    auto document = nlohmann::ordered_json::parse(record.json);
    document["self_test"] = {
        {"reference", found.reference}, {"psnr", nullptr}, {"size", {1, found.height, found.width}}};
    if (std::isfinite(found.psnr)) document["self_test"]["psnr"] = std::round(found.psnr * 100) / 100;
    const std::string path = record_path(engine), temporary = path + ".partial" + std::to_string(getpid());
    std::ofstream file(temporary, std::ios::binary);
    file << document.dump(1) << '\n';
    file.close();
    if (file && std::rename(temporary.c_str(), path.c_str()) == 0) return true;
    std::remove(temporary.c_str());
    return false;
}

}  // namespace derain
