#include "media.hpp"

#include "raw_media.hpp"
#ifdef DERAIN_WITH_GSTREAMER
#include "gst_media.hpp"
#endif

#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <stdexcept>

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

bool is_usable(const Form &form) {
    constexpr int most = 65536;
    return form.width >= 1 && form.height >= 1 && form.width <= most && form.height <= most;
}

Picture Source::picture() const {
    return make_picture(form_.is_video ? DERAIN_FORMAT_I420 : DERAIN_FORMAT_RGB, form_.width, form_.height,
                        form_.colour);
}

std::string ending_of(const std::string &path) {
    const size_t dot = path.find_last_of('.');
    if (dot == std::string::npos || path.find('/', dot) != std::string::npos) return "";
    std::string ending = path.substr(dot);
    for (char &letter : ending) letter = static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
    return ending;
}

std::unique_ptr<Source> open_source(const std::string &path) {
    if (path == "-" || is_raw_file(path)) return open_raw_source(path);
#ifdef DERAIN_WITH_GSTREAMER
    return open_gst_source(path);
#else
    throw std::runtime_error("'" + path +
                             "' is neither a PPM picture (P6) nor YUV4MPEG2 video (4:2:0), and this derain-native was "
                             "built without GStreamer, which reads others. Make one: ffmpeg -i YOURS -pix_fmt yuv420p "
                             "OUT.y4m");
#endif
}

std::unique_ptr<Sink> open_sink(const std::string &path, const Form &form) {
    const std::string ending = ending_of(path), what = form.is_video ? "a video" : "a picture";
    if (path == "-" || ending == ".ppm" || ending == ".y4m") {
        if (path != "-" && form.is_video != (ending == ".y4m")) {
            throw std::runtime_error("'" + path + "' cannot hold " + what + ". Give it the ending " +
                                     (form.is_video ? ".y4m" : ".ppm"));
        }
        return open_raw_sink(path, form);
    }
#ifdef DERAIN_WITH_GSTREAMER
    return open_gst_sink(path, form);
#else
    throw std::runtime_error("'" + path + "' is to hold " + what + ", and this derain-native was built without " +
                             "GStreamer, which writes others than .ppm and .y4m");
#endif
}

PartialFile::~PartialFile() {
    if (!partial_.empty()) std::remove(partial_.c_str());
}

void PartialFile::rename() {
    if (std::rename(partial_.c_str(), path_.c_str()) != 0) {
        throw std::runtime_error("'" + path_ + "' cannot be written (" + std::strerror(errno) + ")");
    }
    partial_.clear();
}
