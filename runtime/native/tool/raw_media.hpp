// Pictures and video that need no library: PPM (P6, 8 bits) and YUV4MPEG2 (4:2:0), which ffmpeg and GStreamer speak.
#pragma once

#include "media.hpp"

// Whether a file begins like one of these. Throws std::runtime_error if it cannot be opened.
bool is_raw_file(const std::string &path);

std::unique_ptr<Source> open_raw_source(const std::string &path);
std::unique_ptr<Sink> open_raw_sink(const std::string &path, const Form &form);
