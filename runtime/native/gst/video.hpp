// Between GStreamer's descriptions of video and libderain's.
#pragma once

#include <derain.h>
#include <gst/video/video.h>

// The colours of a YUV video. Other matrices than BT.601 count as BT.709.
derain_colour colour_of(const GstVideoInfo &info);

// A mapped frame's planes, strides and colour.
derain_frame describe_frame(const GstVideoFrame &frame);

// Narrow a caps structure's "width" or "height" to what a model takes: one size, or, if `fixed` is 0, `minimum` and
// more.
void limit_side(GstStructure *structure, const char *name, gint fixed, gint minimum);
