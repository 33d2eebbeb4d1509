// Between GStreamer's descriptions of video and libderain's.
#pragma once

#include <derain.h>
#include <gst/video/video.h>

// A mapped frame's planes, strides and colour. NV12 and I420 of other matrices than BT.601 count as BT.709.
derain_frame describe_frame(const GstVideoFrame &frame);

// Narrow a caps structure's "width" or "height" to what a model takes: one size, or, if `fixed` is 0, `minimum` and
// more.
void limit_side(GstStructure *structure, const char *name, gint fixed, gint minimum);
