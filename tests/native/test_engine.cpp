// What stands between an engine file and TensorRT: the checksum, the record, and the self-test.
#include "check.hpp"
#include "engine_record.hpp"
#include "error.hpp"
#include "model_bytes.hpp"
#include "self_test.hpp"
#include "sha256.hpp"

#include <unistd.h>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>

namespace {

using derain::Error;

std::string refusal(const std::function<void()> &action, derain_status status) {
    try {
        action();
    } catch (const Error &error) {
        CHECK_EQUAL(error.status(), status);
        return error.what();
    }
    std::cerr << "accepted what cannot be used\n";
    std::exit(1);
}

// FIPS 180-4's examples by NIST, and every way to cut a message into two.
void sums_are_those_of_nist() {
    CHECK_EQUAL(derain::sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK_EQUAL(derain::sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK_EQUAL(derain::sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK_EQUAL(derain::sha256("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmno"
                               "ijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu"),
                "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
    CHECK_EQUAL(derain::sha256(std::string(1'000'000, 'a')),
                "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    const std::string text(150, 'x');
    for (size_t cut = 0; cut <= text.size(); ++cut) {
        derain::Sha256 sum;
        sum.update(text.data(), cut);
        sum.update(text.data() + cut, text.size() - cut);
        CHECK_EQUAL(sum.finish(), derain::sha256(text));
    }
}

const std::string kPlan = "the plan";

std::string changed(const std::string &from, const std::string &to) {
    std::string text = record_text(kPlan);
    const size_t at = text.find(from);
    CHECK(at != std::string::npos);
    return text.replace(at, from.size(), to);
}

const derain::Machine kOrin = {"10.3.0.30", "Orin", {8, 7}, {12, 6}, ""};

void belongs_to(const std::string &record, const derain::Machine &machine) {
    derain::require_machine(derain::parse_record(record, "edge.engine.json"), machine, "edge.engine");
}

std::string mismatch(const std::string &record, const derain::Machine &machine) {
    return refusal([&] { belongs_to(record, machine); }, DERAIN_BAD_MODEL);
}

void an_engine_belongs_to_its_machine() {
    const std::string record = record_text(kPlan);
    const derain::Machine newer = {"10.13.3.9", "Orin", {8, 7}, {12, 6}, ""},
                          thor = {"10.3.0.30", "Thor", {11, 0}, {12, 6}, ""},
                          cuda13 = {"10.3.0.30", "Orin", {8, 7}, {13, 0}, ""},
                          unknown = {"10.3.0.30", "Orin", {8, 7}, {}, ""};
    belongs_to(record, kOrin);
    belongs_to(record, unknown);
    CHECK(contains(mismatch(record, newer), "built with tensorrt 10.3.0, and this machine has 10.13.3.9"));
    CHECK(contains(mismatch(record, thor), "built on Orin (SM87), and this machine has Thor (SM110)"));
    CHECK(contains(mismatch(record, cuda13), "a driver for CUDA 12.6, and this one is for 13.0"));
    const std::string with_driver = changed("\"cuda\":[12,6]", "\"cuda\":[12,6],\"driver\":\"540.4.0\"");
    belongs_to(with_driver, kOrin);
    belongs_to(with_driver, {"10.3.0.30", "Orin", {8, 7}, {12, 6}, "540.4.0"});
    CHECK(contains(mismatch(with_driver, {"10.3.0.30", "Orin", {8, 7}, {12, 6}, "550.1"}),
                   "built with driver 540.4.0, and this machine has 550.1"));
    const std::string compatible = changed("\"version_compatible\":false", "\"version_compatible\":true");
    belongs_to(compatible, newer);
    belongs_to(compatible, cuda13);
    CHECK(contains(mismatch(compatible, {"10.2.0.1", "Orin", {8, 7}, {12, 6}, ""}), "this machine has 10.2.0.1"));
    CHECK(contains(mismatch(compatible, {"11.0.0.1", "Orin", {8, 7}, {12, 6}, ""}), "this machine has 11.0.0.1"));
    belongs_to(changed("\"hardware_compatible\":false", "\"hardware_compatible\":true"), thor);
    CHECK(
        contains(mismatch(changed("\"toolkit\":\"tensorrt\"", "\"toolkit\":\"tensorrt-rtx\""), kOrin), "tensorrt-rtx"));
    const std::string ahead = changed("\"capabilities\":[]", "\"capabilities\":[\"SM86\",\"SM110\"]");
    belongs_to(ahead, thor);
    CHECK(contains(mismatch(ahead, kOrin), "compute capability SM86, SM110, and Orin is SM87"));
}

void a_driver_tells_its_version() {
    using derain::kernel_module_version;
    CHECK_EQUAL(
        kernel_module_version("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12\nGCC 12.2\n"),
        std::string("535.183.01"));
    CHECK_EQUAL(kernel_module_version("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release\n"),
                std::string("540.4.0"));
    CHECK_EQUAL(kernel_module_version("Kernel Module\nGCC version: 12.2.0\n"), std::string());
    CHECK_EQUAL(kernel_module_version(""), std::string());
}

std::string of_trtexec(const std::string &toolkit) {
    return R"({"schema_version":1,"made_by":"trtexec","plan_bytes":8,"plan_sha256":")" + derain::sha256(kPlan) +
           R"(","onnx":"edge.onnx","toolkit":")" + toolkit + R"(","made":"2026-01-01T00:00:00Z"})";
}

void engines_of_trtexec_tell_their_version() {
    belongs_to(of_trtexec("tensorrt 10.3.0"), kOrin);
    belongs_to(of_trtexec("tensorrt 10.2.0 or newer"), kOrin);
    CHECK(contains(mismatch(of_trtexec("tensorrt 10.2.0"), kOrin),
                   "tensorrt 10.2.0, and this machine has tensorrt 10.3.0"));
    CHECK(contains(mismatch(of_trtexec("tensorrt 9.3.0 or newer"), kOrin), "9.3.0"));
    CHECK(contains(mismatch(of_trtexec("onnxruntime 1.20"), kOrin), "onnxruntime"));
}

std::string damaged(const std::string &record) {
    return refusal([&] { derain::parse_record(record, "edge.engine.json"); }, DERAIN_BAD_MODEL);
}

void refuses_damaged_records() {
    const std::string whole = record_text(kPlan);
    for (size_t length = 0; length < whole.size(); length += 5) damaged(whole.substr(0, length));
    CHECK(contains(damaged(changed("\"schema_version\":1", "\"schema_version\":2")), "newer derain"));
    CHECK(contains(damaged(changed("\"plan_bytes\":8", "\"plan_bytes\":0")), "plan_bytes"));
    CHECK(contains(damaged(changed("\"plan_sha256\":\"", "\"plan_sha256\":\"A")), "plan_sha256"));
    CHECK(contains(damaged(changed("\"derain\"", "\"someone\"")), "made_by"));
    CHECK(contains(damaged(changed("\"gpu\":\"Orin\"", "\"gpu\":7")), "key.gpu"));
    CHECK(contains(damaged(changed("\"capability\":[8,7]", "\"capability\":[8]")), "key.capability"));
    CHECK(contains(damaged(changed("\"max\":[1,96,128]", "\"max\":[1,9,128]")), "key.options.profile"));
    CHECK(contains(damaged(changed("\"part\":\"whole\"", "\"part\":7")), "part"));
}

struct Files {
    std::string engine = "test_engine." + std::to_string(getpid()) + ".engine";
    ~Files() {
        std::remove(engine.c_str());
        std::remove(derain::record_path(engine).c_str());
    }
    void write(const std::string &plan, const std::string &record) const {
        std::ofstream(engine, std::ios::binary) << plan;
        std::ofstream(derain::record_path(engine), std::ios::binary) << record;
    }
    std::string refusal() const {
        return ::refusal([this] { derain::read_plan(engine, derain::read_record(engine)); }, DERAIN_BAD_MODEL);
    }
};

void a_plan_is_what_its_record_describes() {
    const Files files;
    CHECK(contains(files.refusal(), "no record beside it"));
    files.write(kPlan, record_text(kPlan));
    const auto plan = derain::read_plan(files.engine, derain::read_record(files.engine));
    CHECK_EQUAL(std::string(plan.begin(), plan.end()), kPlan);
    files.write(kPlan.substr(1), record_text(kPlan));
    CHECK(contains(files.refusal(), "cut short: it has 7 bytes"));
    files.write("The plan", record_text(kPlan));
    CHECK(contains(files.refusal(), "another checksum"));
    files.write(kPlan + "!", record_text(kPlan));
    CHECK(contains(files.refusal(), "another checksum"));
    std::remove(files.engine.c_str());
    CHECK(contains(files.refusal(), "cannot be read"));
}

void a_passed_test_is_noted() {
    const Files files;
    files.write(kPlan, record_text(kPlan));
    const auto record = derain::read_record(files.engine);
    CHECK(!record.tested);
    CHECK(derain::write_self_test(files.engine, record, {"OpenVINO on CPU", 61.234, 64, 48}));
    std::ifstream file(derain::record_path(files.engine));
    const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    CHECK(contains(text, "61.23"));
    const auto again = derain::read_record(files.engine);
    CHECK(again.tested);
    CHECK_EQUAL(again.plan_sha256, record.plan_sha256);
    CHECK(again.key && again.card);
    CHECK(!derain::write_self_test("no/such/folder/edge.engine", record, {"", 0, 1, 1}));
}

// A network made of one function from a BGR level to a BGR level.
class Fake : public derain::Lane {
  public:
    explicit Fake(std::function<uint8_t(const uint8_t *, size_t)> level, float rain = 0.25F)
        : level_(std::move(level)), rain_(rain) {}

    void infer(const derain::Tensors &tensors) override {
        const auto pixels = static_cast<size_t>(tensors.width) * static_cast<size_t>(tensors.height);
        const auto *frame = static_cast<const uint8_t *>(tensors.inputs[0]);
        for (size_t i = 0; i < 3 * pixels; ++i) static_cast<uint8_t *>(tensors.outputs[0])[i] = level_(frame, i);
        for (size_t i = 0; i < pixels; ++i) static_cast<float *>(tensors.outputs[1])[i] = rain_;
    }

  private:
    std::function<uint8_t(const uint8_t *, size_t)> level_;
    float rain_;
};

void the_self_test_finds_wrong_engines() {
    const derain::Card card = derain::parse_card(kCard, "a card");
    const derain::Profile profile = {{1, 16, 16}, {1, 48, 64}, {1, 96, 128}};
    Fake right([](const uint8_t *frame, size_t i) { return frame[i]; });
    Fake close([](const uint8_t *frame, size_t i) { return static_cast<uint8_t>(frame[i] + (i % 500 == 0 ? 1 : 0)); });
    Fake black([](const uint8_t *, size_t) { return uint8_t{0}; });
    Fake swapped([](const uint8_t *frame, size_t i) { return frame[i - i % 3 + (2 - i % 3)]; });
    Fake undefined([](const uint8_t *frame, size_t i) { return frame[i]; }, std::numeric_limits<float>::quiet_NaN());
    Fake other_map([](const uint8_t *frame, size_t i) { return frame[i]; }, 0.5F);
    const auto test = [&](Fake &engine) { return derain::self_test(engine, &right, "the reference", card, profile); };

    CHECK_EQUAL(test(right).width, 128);
    CHECK_EQUAL(test(right).height, 96);
    CHECK(std::isinf(test(right).psnr));
    CHECK(test(close).psnr > 70 && test(close).psnr < 80);
    CHECK(contains(refusal([&] { test(black); }, DERAIN_BACKEND), "all black"));
    CHECK(contains(refusal([&] { test(swapped); }, DERAIN_BACKEND), "'derained' is"));
    CHECK(contains(refusal([&] { test(undefined); }, DERAIN_BACKEND), "'attention' that are no numbers"));
    CHECK(contains(refusal([&] { test(other_map); }, DERAIN_BACKEND), "'attention' is 12.04"));
    const auto alone = derain::self_test(other_map, nullptr, "none: no model", card, profile);
    CHECK(std::isinf(alone.psnr) && alone.reference == "none: no model");
}

}  // namespace

int main() {
    sums_are_those_of_nist();
    an_engine_belongs_to_its_machine();
    a_driver_tells_its_version();
    engines_of_trtexec_tell_their_version();
    refuses_damaged_records();
    a_plan_is_what_its_record_describes();
    a_passed_test_is_noted();
    the_self_test_finds_wrong_engines();
}
