// Pictures and video of all kinds that this machine's GStreamer reads and writes.
#pragma once

#include "media.hpp"

std::unique_ptr<Source> open_gst_source(const std::string &path);
std::unique_ptr<Sink> open_gst_sink(const std::string &path, const Form &form);
