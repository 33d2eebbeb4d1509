#include "raw_media.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <optional>
#include <stdexcept>

namespace {

int number(const std::string &text) {
    if (text.empty() || text.size() > 6 || text.find_first_not_of("0123456789") != std::string::npos) return 0;
    return std::stoi(text);
}

class RawSource : public Source {
  public:
    explicit RawSource(const std::string &path) : path_(path), stream_(path == "-" ? std::cin : file_) {
        if (path != "-") file_.open(path, std::ios::binary);
        if (!stream_) reject(std::string("cannot be opened (") + std::strerror(errno) + ")");
        if (stream_.peek() == std::istream::traits_type::eof()) reject("is empty");
        if (stream_.peek() == 'Y') {
            open_y4m();
        } else {
            open_ppm();
        }
        if (!is_usable(form_)) reject("has no usable size");
    }

    bool read(Picture &picture) override {
        if (form_.is_video) {
            if (stream_.peek() < 0) return false;
            if (line(1000).compare(0, 5, "FRAME") != 0) reject("is damaged: a frame does not begin with FRAME");
        } else if (frames_ > 0) {
            return false;
        }
        const auto size = static_cast<std::streamsize>(picture.bytes.size());
        stream_.read(reinterpret_cast<char *>(picture.bytes.data()), size);
        if (stream_.gcount() != size) reject("ends in the middle of a frame");
        if (form_.rate_over > 0) {
            picture.frame.timestamp = frames_ * int64_t{1'000'000'000} * form_.rate_under / form_.rate_over;
        }
        ++frames_;
        return true;
    }

  private:
    [[noreturn]] void reject(const std::string &why) const {
        throw std::runtime_error((path_ == "-" ? "Standard input" : "'" + path_ + "'") + " " + why +
                                 ". Expected a PPM picture (P6) or YUV4MPEG2 video (4:2:0, 8 bits); make one with: "
                                 "ffmpeg -i YOURS -pix_fmt yuv420p -f yuv4mpegpipe -");
    }

    std::string line(size_t limit) {
        std::string text;
        for (int byte = stream_.get(); byte != '\n'; byte = stream_.get()) {
            if (byte < 0 || text.size() >= limit) reject("has no whole header");
            text += static_cast<char>(byte);
        }
        return text;
    }

    void open_ppm() {
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
        form_.width = number(words[1]);
        form_.height = number(words[2]);
        if (words[3] != "255") reject("has " + words[3] + " levels, not 255");
    }

    void open_y4m() {
        form_.is_video = true;
        form_.y4m_header = line(1000);
        const std::string &header = form_.y4m_header;
        if (header.compare(0, 10, "YUV4MPEG2 ") != 0) reject("is neither a PPM picture nor YUV4MPEG2 video");
        bool full = false;
        for (size_t at = header.find(' '); at != std::string::npos; at = header.find(' ', at + 1)) {
            const size_t end = header.find(' ', at + 1);
            const std::string word = header.substr(at + 1, end == std::string::npos ? end : end - at - 1);
            if (word.empty()) continue;
            const std::string value = word.substr(1);
            if (word[0] == 'W') form_.width = number(value);
            if (word[0] == 'H') form_.height = number(value);
            if (word[0] == 'F') read_rate(value);
            const bool known = value == "420" || value == "420jpeg" || value == "420mpeg2" || value == "420paldv";
            if (word[0] == 'C' && !known) reject("has the pixel format " + value);
            full = full || word == "XCOLORRANGE=FULL";
        }
        // The file does not name a matrix. By custom, high definition is BT.709.
        const bool high = form_.height >= 720;
        if (high) {
            form_.colour = full ? DERAIN_COLOUR_BT709_FULL : DERAIN_COLOUR_BT709_LIMITED;
        } else {
            form_.colour = full ? DERAIN_COLOUR_BT601_FULL : DERAIN_COLOUR_BT601_LIMITED;
        }
    }

    void read_rate(const std::string &value) {
        const size_t colon = value.find(':');
        if (colon == std::string::npos) return;
        const int over = number(value.substr(0, colon)), under = number(value.substr(colon + 1));
        if (over > 0 && under > 0) {
            form_.rate_over = over;
            form_.rate_under = under;
        }
    }

    std::string path_;
    std::ifstream file_;
    std::istream &stream_;
    int64_t frames_ = 0;
};

class RawSink : public Sink {
  public:
    RawSink(const std::string &path, const Form &form)
        : path_(path), form_(form), stream_(path == "-" ? std::cout : file_) {
        if (path != "-") {
            partial_.emplace(path);
            file_.open(partial_->partial(), std::ios::binary);
            if (!file_) throw std::runtime_error("'" + path + "' cannot be written (" + std::strerror(errno) + ")");
        }
        if (form.is_video) stream_ << (form.y4m_header.empty() ? header() : form.y4m_header) << '\n';
    }

    void write(const Picture &picture) override {
        if (form_.is_video) {
            stream_ << "FRAME\n";
        } else {
            stream_ << "P6\n" << form_.width << ' ' << form_.height << "\n255\n";
        }
        stream_.write(reinterpret_cast<const char *>(picture.bytes.data()),
                      static_cast<std::streamsize>(picture.bytes.size()));
        require_written();
    }

    void finish() override {
        stream_.flush();
        require_written();
        if (!partial_) return;
        file_.close();
        require_written();
        partial_->rename();
    }

  private:
    void require_written() const {
        if (!stream_) throw std::runtime_error("'" + path_ + "' cannot be written; is the disk full?");
    }

    std::string header() const {
        const bool full = form_.colour == DERAIN_COLOUR_BT601_FULL || form_.colour == DERAIN_COLOUR_BT709_FULL;
        std::string text = "YUV4MPEG2 W" + std::to_string(form_.width) + " H" + std::to_string(form_.height);
        // A file of this kind must name a rate: where there is none, 25 a second.
        text += form_.rate_over > 0 ? " F" + std::to_string(form_.rate_over) + ":" + std::to_string(form_.rate_under)
                                    : std::string(" F25:1");
        return text + " Ip A0:0 C420jpeg" + (full ? " XCOLORRANGE=FULL" : "");
    }

    std::string path_;
    Form form_;
    std::optional<PartialFile> partial_;
    std::ofstream file_;
    std::ostream &stream_;
};

}  // namespace

bool is_raw_file(const std::string &path) {
    errno = 0;
    std::ifstream file(path, std::ios::binary);
    char first[10] = {};
    if (file) file.read(first, sizeof(first));
    if (!file && file.gcount() == 0) {
        const char *why = errno != 0 ? std::strerror(errno) : "it is empty";
        throw std::runtime_error("'" + path + "' cannot be opened (" + why + ")");
    }
    return std::strncmp(first, "P6", 2) == 0 || std::strncmp(first, "YUV4MPEG2 ", sizeof(first)) == 0;
}

std::unique_ptr<Source> open_raw_source(const std::string &path) {
    return std::make_unique<RawSource>(path);
}

std::unique_ptr<Sink> open_raw_sink(const std::string &path, const Form &form) {
    return std::make_unique<RawSink>(path, form);
}
