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
    CHECK_EQUAL(card.frame().name, std::string("frame"));
    CHECK_EQUAL(card.derained().name, std::string("derained"));
    CHECK_EQUAL(card.rain().name, std::string("attention"));
    CHECK(card.frame().is_interleaved_u8() && card.frame().is_bgr());
    CHECK_EQUAL(card.minimum, 2);
    CHECK_EQUAL(card.fixed_width, 64);
    CHECK_EQUAL(card.fixed_height, 0);
    CHECK_EQUAL(card.rain_half, 0.006);
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
    for (const char *wrong : {"0", "-0.1", "\"0.01\"", "true", "[]"}) {
        CHECK(contains(refusal(changed("{", "{\"rain_half\":" + std::string(wrong) + ",")), "rain_half"));
    }
    CHECK(contains(refusal(changed("\"whole\"", "\"tile\"")), "'tile' part"));
    CHECK(contains(refusal(changed("NHWC", "CHWN")), "'CHWN' is not known"));
    CHECK(contains(refusal(changed("uint8", "int4")), "'int4' is not known"));
    CHECK(contains(refusal(changed("\"BGR\"", "\"Y\"")), "one BGR or RGB picture"));
    CHECK(contains(refusal(changed("\"whole\"", "\"attention\"")), "expected a rain map"));
    CHECK(contains(refusal(changed("\"attention\",\"value_range\"", "\"BGR\",\"value_range\"")), "outputs"));
    CHECK(contains(refusal(changed("\"frame\"", "\"fr\\u0000\"")), "zero byte"));
}

// The card of a model whose input is two planes, and that of an extractor alone.
void reads_other_contracts() {
    const std::string planes = R"({"name":"y","layout":"NHW","dtype":"uint8","channels":"Y","value_range":[0,255]},)"
                               R"({"name":"uv","layout":"NHWC","dtype":"uint8","channels":"UV","value_range":[0,255]})";
    std::string json = kCard;
    const size_t from = json.find("{\"name\":\"frame\""), to = json.find("],\"outputs\"");
    json.replace(from, to - from, planes);
    const auto parse = [](const std::string &text) { return derain::parse_card(text, "a card"); };
    try {
        parse(json);
        CHECK(false);
    } catch (const Error &error) {
        CHECK(contains(error.what(), "yuv: the field is missing"));
    }
    const derain::Card nv12 = parse("{\"yuv\":\"bt709-limited\"," + json.substr(1));
    CHECK(nv12.takes_nv12() && nv12.gives_pictures());
    CHECK_EQUAL(nv12.colour, int32_t{DERAIN_COLOUR_BT709_LIMITED});
    CHECK_EQUAL(nv12.inputs[0].bytes(8, 6) + nv12.inputs[1].bytes(8, 6), size_t{8 * 6 * 3 / 2});

    CHECK_EQUAL(parse("{\"rain_half\":0.03," + std::string(kCard).substr(1)).rain_half, 0.03);
    json = kCard;
    json.replace(json.find("\"whole\""), 7, "\"attention\"");
    const size_t first = json.find("{\"name\":\"derained\""), next = json.find("{\"name\":\"attention\"");
    json.erase(first, next - first);
    const derain::Card extractor = parse(json);
    CHECK(!extractor.gives_pictures());
    CHECK_EQUAL(extractor.rain().name, std::string("attention"));
}

}  // namespace

int main() {
    reads_what_python_wrote();
    reads_other_contracts();
    refuses_damaged_files();
    refuses_wrong_cards();
}
