#include "media.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <stdexcept>

namespace {

constexpr int kMaxSide = 65536;

int number(const std::string &text) {
    if (text.empty() || text.size() > 6 || text.find_first_not_of("0123456789") != std::string::npos) return 0;
    return std::stoi(text);
}

}  // namespace

Picture make_picture(derain_format format, int width, int height, derain_colour colour) {
    Picture picture;
    derain_frame_init(&picture.frame, format, width, height);
    picture.frame.colour = colour;
    const auto w = static_cast<size_t>(width), h = static_cast<size_t>(height);
    const size_t chroma = ((w + 1) / 2) * ((h + 1) / 2);
    switch (format) {
        case DERAIN_FORMAT_BGRA: picture.bytes.resize(4 * w * h); break;
        case DERAIN_FORMAT_NV12:
        case DERAIN_FORMAT_I420: picture.bytes.resize(w * h + 2 * chroma); break;
        case DERAIN_FORMAT_RGB_PLANAR_F32: picture.bytes.resize(3 * w * h * sizeof(float)); break;
        default: picture.bytes.resize(3 * w * h);
    }
    uint8_t *first = picture.bytes.data();
    const bool floats = format == DERAIN_FORMAT_RGB_PLANAR_F32;
    picture.frame.plane[0] = first;
    picture.frame.plane[1] = first + (floats ? w * h * sizeof(float) : w * h);
    picture.frame.plane[2] = first + (floats ? 2 * w * h * sizeof(float) : w * h + chroma);
    return picture;
}

Source::Source(const std::string &path) : path_(path), stream_(path == "-" ? std::cin : file_) {
    if (path != "-") {
        file_.open(path, std::ios::binary);
        if (!file_) reject(std::string("cannot be opened (") + std::strerror(errno) + ")");
    }
    if (stream_.peek() == 'Y') {
        open_y4m();
    } else {
        open_ppm();
    }
    if (width_ < 1 || height_ < 1 || width_ > kMaxSide || height_ > kMaxSide) reject("has no usable size");
}

void Source::reject(const std::string &why) const {
    throw std::runtime_error(
        "'" + path_ + "' " + why +
        ". derain-native reads PPM pictures (P6) and YUV4MPEG2 video (4:2:0, 8 bits); make one with: "
        "ffmpeg -i YOURS -pix_fmt yuv420p OUT.y4m");
}

std::string Source::line(size_t limit) {
    std::string text;
    for (int byte = stream_.get(); byte != '\n'; byte = stream_.get()) {
        if (byte < 0 || text.size() >= limit) reject("has no whole header");
        text += static_cast<char>(byte);
    }
    return text;
}

void Source::open_ppm() {
    std::vector<std::string> words;
    // P6, width, height and the largest value, with comments anywhere between them.
    while (words.size() < 4) {
        const int byte = stream_.peek();
        if (byte == '#') {
            line(1000);
        } else if (byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r') {
            stream_.get();
        } else {
            std::string word;
            while (stream_.peek() > ' ' && word.size() < 10) word += static_cast<char>(stream_.get());
            if (word.empty()) reject("is neither a PPM picture nor YUV4MPEG2 video");
            words.push_back(word);
        }
        if (!words.empty() && words[0] != "P6") reject("is neither a PPM picture nor YUV4MPEG2 video");
    }
    stream_.get();
    width_ = number(words[1]);
    height_ = number(words[2]);
    if (words[3] != "255") reject("has " + words[3] + " levels, not 255");
}

void Source::open_y4m() {
    y4m_header_ = line(1000);
    if (y4m_header_.compare(0, 10, "YUV4MPEG2 ") != 0) reject("is neither a PPM picture nor YUV4MPEG2 video");
    format_ = DERAIN_FORMAT_I420;
    bool full = false;
    for (size_t at = y4m_header_.find(' '); at != std::string::npos; at = y4m_header_.find(' ', at + 1)) {
        const size_t end = y4m_header_.find(' ', at + 1);
        const std::string word = y4m_header_.substr(at + 1, end == std::string::npos ? end : end - at - 1);
        if (word.empty()) continue;
        const std::string value = word.substr(1);
        if (word[0] == 'W') width_ = number(value);
        if (word[0] == 'H') height_ = number(value);
        const bool known = value == "420" || value == "420jpeg" || value == "420mpeg2" || value == "420paldv";
        if (word[0] == 'C' && !known) reject("has the pixel format " + value);
        full = full || word == "XCOLORRANGE=FULL";
    }
    // The format does not name a matrix. By custom, high definition is BT.709.
    const bool high = height_ >= 720;
    if (high) {
        colour_ = full ? DERAIN_COLOUR_BT709_FULL : DERAIN_COLOUR_BT709_LIMITED;
    } else {
        colour_ = full ? DERAIN_COLOUR_BT601_FULL : DERAIN_COLOUR_BT601_LIMITED;
    }
}

bool Source::read(Picture &picture) {
    if (is_video()) {
        if (stream_.peek() < 0) return false;
        if (line(1000).compare(0, 5, "FRAME") != 0) reject("is damaged: a frame does not begin with FRAME");
    } else if (picture_read_) {
        return false;
    }
    picture_read_ = true;
    const auto size = static_cast<std::streamsize>(picture.bytes.size());
    stream_.read(reinterpret_cast<char *>(picture.bytes.data()), size);
    if (stream_.gcount() != size) reject("ends in the middle of a frame");
    return true;
}

Sink::Sink(const std::string &path, const Source &source)
    : path_(path), header_(source.header()), stream_(path == "-" ? std::cout : file_) {
    if (path != "-") {
        temporary_ = path + ".partial";
        file_.open(temporary_, std::ios::binary);
        if (!file_) throw std::runtime_error("'" + path + "' cannot be written (" + std::strerror(errno) + ")");
    }
    if (!header_.empty()) stream_ << header_ << '\n';
}

Sink::~Sink() {
    if (!temporary_.empty()) std::remove(temporary_.c_str());
}

void Sink::write(const Picture &picture) {
    if (header_.empty()) {
        stream_ << "P6\n" << picture.frame.width << ' ' << picture.frame.height << "\n255\n";
    } else {
        stream_ << "FRAME\n";
    }
    stream_.write(reinterpret_cast<const char *>(picture.bytes.data()),
                  static_cast<std::streamsize>(picture.bytes.size()));
    if (!stream_) throw std::runtime_error("'" + path_ + "' cannot be written; is the disk full?");
}

void Sink::finish() {
    stream_.flush();
    if (!stream_) throw std::runtime_error("'" + path_ + "' cannot be written; is the disk full?");
    if (temporary_.empty()) return;
    file_.close();
    if (std::rename(temporary_.c_str(), path_.c_str()) != 0) {
        throw std::runtime_error("'" + path_ + "' cannot be written (" + std::strerror(errno) + ")");
    }
    temporary_.clear();
}
