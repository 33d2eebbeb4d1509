// The type of the element `derain`.
#pragma once

#include <gst/video/gstvideofilter.h>

G_BEGIN_DECLS
G_DECLARE_FINAL_TYPE(GstDerain, gst_derain, GST, DERAIN, GstVideoFilter)
G_END_DECLS
