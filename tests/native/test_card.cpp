// The model card: what is read from it, and what every kind of damage is answered with.
#include "card.hpp"
#include "check.hpp"
#include "error.hpp"
#include "model_bytes.hpp"

#include <cstdio>
#include <fstream>

using derain::Error;

namespace {

std::string file_with(const std::string &bytes) {
    static const std::string path = "test_card." + std::to_string(std::rand()) + ".onnx";
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
}

// The message with which a file is refused.
std::string refusal(const std::string &bytes) {
    const std::string path = file_with(bytes);
    std::string message;
    try {
        derain::read_card(path);
        std::cerr << "a damaged file was accepted\n";
        std::exit(1);
    } catch (const Error &error) {
        CHECK_EQUAL(error.status(), DERAIN_BAD_MODEL);
        message = error.what();
    }
    std::remove(path.c_str());
    return message;
}

std::string changed(const std::string &from, const std::string &to) {
    std::string card = kCard;
    const size_t at = card.find(from);
    CHECK(at != std::string::npos);
    return model_bytes("derain.card", card.replace(at, from.size(), to));
}

void reads_what_python_wrote() {
    const std::string path = file_with(model_bytes("derain.card", kCard));
    const derain::Card card = derain::read_card(path);
    std::remove(path.c_str());
    CHECK_EQUAL(card.name, std::string("standin"));
    CHECK_EQUAL(card.frame.name, std::string("frame"));
    CHECK_EQUAL(card.derained.name, std::string("derained"));
    CHECK_EQUAL(card.attention, std::string("attention"));
    CHECK(card.frame.is_interleaved_u8() && card.frame.bgr);
    CHECK_EQUAL(card.minimum, 2);
    CHECK_EQUAL(card.fixed_width, 64);
    CHECK_EQUAL(card.fixed_height, 0);
    CHECK_EQUAL(card.json, kCard);
}

void refuses_damaged_files() {
    CHECK(contains(refusal(""), "empty"));
    CHECK(contains(refusal("\x89PNG\r\n"), "not a whole ONNX file"));
    CHECK(contains(refusal(model_bytes("other", kCard)), "without a derain model card"));
    CHECK(contains(refusal(field(14, field(1, "derain.card") + field(2, kCard))), "has no graph"));
    const std::string whole = model_bytes("derain.card", kCard);
    for (size_t length = 1; length < whole.size(); length += 7) refusal(whole.substr(0, length));
    CHECK(contains(refusal(field(7, "g") + std::string(11, '\x80')), "more than ten bytes"));
    CHECK(contains(refusal(field(7, "g") + "\x72\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "longer than the file"));
    CHECK(contains(refusal(model_bytes("derain.card", std::string(300'000, ' '))), "at most 262144"));
    CHECK(contains(refusal(model_bytes("derain.card", std::string(2 << 20, ' '))), "1 MiB"));
}

void refuses_wrong_cards() {
    CHECK(contains(refusal(model_bytes("derain.card", "{")), "not JSON"));
    CHECK(contains(refusal(model_bytes("derain.card", std::string(200'000, '['))), "not JSON"));
    CHECK(contains(refusal(model_bytes("derain.card", "[]")), "no object"));
    CHECK(contains(refusal(changed("\"schema_version\":1", "\"schema_version\":2")), "newer derain"));
    CHECK(contains(refusal(changed("\"minimum\":2", "\"minimum\":0")), "geometry.minimum"));
    CHECK(contains(refusal(changed("\"minimum\":2", "\"minimum\":18446744073709551615")), "geometry.minimum"));
    CHECK(contains(refusal(changed("\"minimum\":2", "\"minimum\":2.5")), "geometry.minimum"));
    CHECK(contains(refusal(changed("\"minimum\":2", "\"smallest\":2")), "the field is missing"));
    CHECK(contains(refusal(changed("\"whole\"", "\"tile\"")), "'tile' part"));
    CHECK(contains(refusal(changed("NHWC", "CHWN")), "'CHWN' is not known"));
    CHECK(contains(refusal(changed("uint8", "float16")), "'float16' is not known"));
    CHECK(contains(refusal(changed("\"attention\",\"value_range\"", "\"BGR\",\"value_range\"")), "outputs"));
    CHECK(contains(refusal(changed("\"frame\"", "\"fr\\u0000\"")), "zero byte"));
}

}  // namespace

int main() {
    reads_what_python_wrote();
    refuses_damaged_files();
    refuses_wrong_cards();
}
