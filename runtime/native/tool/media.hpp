// Pictures and video for derain-native: where frames come from and where they go, whatever the file is.
#pragma once

#include <derain.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

// One picture's memory and its description. The timestamp is in nanoseconds from the beginning.
struct Picture {
    std::vector<uint8_t> bytes;
    derain_frame frame;
};

// A picture of that format and size with planes of its own, without gaps between rows.
Picture make_picture(derain_format format, int width, int height, derain_colour colour);

// What the frames of a file have in common: a picture is one RGB frame, a video has I420 frames.
struct Form {
    bool is_video = false;
    int width = 0, height = 0;
    derain_colour colour = DERAIN_COLOUR_BT601_LIMITED;
    int rate_over = 0, rate_under = 1;  // frames a second, as a fraction; 0 / 1: unknown or not constant
    std::string y4m_header;             // of a YUV4MPEG2 file: it also tells what derain-native has no use for
};

// Whether the form can be one of a file that the project's frames fit into.
bool is_usable(const Form &form);

class Source {
  public:
    virtual ~Source() = default;

    const Form &form() const { return form_; }

    // A picture that fits the frames.
    Picture picture() const;

    // The next frame; false at the end. Throws std::runtime_error.
    virtual bool read(Picture &picture) = 0;

  protected:
    Form form_;
};

class Sink {
  public:
    virtual ~Sink() = default;  // removes what was not finished

    // Throws std::runtime_error, as finish does.
    virtual void write(const Picture &picture) = 0;

    // Make sure that everything was written, and give the file its final name.
    virtual void finish() = 0;
};

// A file, or "-" for standard input and output. PPM and YUV4MPEG2 need no library; everything else goes through
// GStreamer, if the tool was built with it. Throws std::runtime_error for what cannot be read or written.
std::unique_ptr<Source> open_source(const std::string &path);
std::unique_ptr<Sink> open_sink(const std::string &path, const Form &form);

// ".mp4" for "Clean.MP4".
std::string ending_of(const std::string &path);

// A file that has its name only once it is whole.
class PartialFile {
  public:
    explicit PartialFile(const std::string &path) : path_(path), partial_(path + ".partial") {}
    ~PartialFile();
    PartialFile(const PartialFile &) = delete;
    PartialFile &operator=(const PartialFile &) = delete;

    const std::string &partial() const { return partial_; }
    void rename();  // throws std::runtime_error

  private:
    std::string path_, partial_;
};
