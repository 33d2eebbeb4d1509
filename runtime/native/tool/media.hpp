// Pictures and video that need no library: PPM (P6, 8 bits) and YUV4MPEG2 (4:2:0), which ffmpeg and GStreamer speak.
#pragma once

#include <derain.h>

#include <cstdint>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

// One picture's memory and its description.
struct Picture {
    std::vector<uint8_t> bytes;
    derain_frame frame;
};

// A picture of that format and size with planes of its own.
Picture make_picture(derain_format format, int width, int height, derain_colour colour);

// Frames from a file or, for "-", from standard input. Throws std::runtime_error for what it cannot read.
class Source {
  public:
    explicit Source(const std::string &path);

    bool is_video() const { return !y4m_header_.empty(); }
    const std::string &header() const { return y4m_header_; }

    // A picture that fits the frames.
    Picture picture() const { return make_picture(format_, width_, height_, colour_); }

    // The next frame; false at the end.
    bool read(Picture &picture);

  private:
    void open_ppm();
    void open_y4m();
    std::string line(size_t limit);
    [[noreturn]] void reject(const std::string &why) const;

    std::string path_, y4m_header_;
    std::ifstream file_;
    std::istream &stream_;
    derain_format format_ = DERAIN_FORMAT_RGB;
    derain_colour colour_ = DERAIN_COLOUR_BT601_LIMITED;
    int width_ = 0, height_ = 0;
    bool picture_read_ = false;
};

// Writes frames of the source's kind to a file or, for "-", to standard output.
class Sink {
  public:
    Sink(const std::string &path, const Source &source);
    ~Sink();  // removes what was not finished
    Sink(const Sink &) = delete;
    Sink &operator=(const Sink &) = delete;

    void write(const Picture &picture);

    // Check that everything was written, and give the file its final name.
    void finish();

  private:
    std::string path_, temporary_, header_;
    std::ofstream file_;
    std::ostream &stream_;
};
