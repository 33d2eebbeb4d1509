#include "video.hpp"

derain_colour colour_of(const GstVideoInfo &info) {
    const bool full = info.colorimetry.range == GST_VIDEO_COLOR_RANGE_0_255;
    if (info.colorimetry.matrix == GST_VIDEO_COLOR_MATRIX_BT601) {
        return full ? DERAIN_COLOUR_BT601_FULL : DERAIN_COLOUR_BT601_LIMITED;
    }
    // BT.709 is the nearest of those that libderain knows to the matrices of wider colour spaces.
    return full ? DERAIN_COLOUR_BT709_FULL : DERAIN_COLOUR_BT709_LIMITED;
}

derain_frame describe_frame(const GstVideoFrame &frame) {
    derain_format format = DERAIN_FORMAT_BGRA;
    switch (GST_VIDEO_FRAME_FORMAT(&frame)) {
        case GST_VIDEO_FORMAT_BGR: format = DERAIN_FORMAT_BGR; break;
        case GST_VIDEO_FORMAT_RGB: format = DERAIN_FORMAT_RGB; break;
        case GST_VIDEO_FORMAT_NV12: format = DERAIN_FORMAT_NV12; break;
        case GST_VIDEO_FORMAT_I420: format = DERAIN_FORMAT_I420; break;
        default: break;
    }
    derain_frame described;
    derain_frame_init(&described, format, GST_VIDEO_FRAME_WIDTH(&frame), GST_VIDEO_FRAME_HEIGHT(&frame));
    described.colour = colour_of(frame.info);
    for (guint plane = 0; plane < GST_VIDEO_FRAME_N_PLANES(&frame); ++plane) {
        described.plane[plane] = GST_VIDEO_FRAME_PLANE_DATA(&frame, plane);
        described.stride[plane] = static_cast<size_t>(GST_VIDEO_FRAME_PLANE_STRIDE(&frame, plane));
    }
    return described;
}

void limit_side(GstStructure *structure, const char *name, gint fixed, gint minimum) {
    GValue allowed = G_VALUE_INIT, common = G_VALUE_INIT;
    if (fixed != 0) {
        g_value_init(&allowed, G_TYPE_INT);
        g_value_set_int(&allowed, fixed);
    } else {
        g_value_init(&allowed, GST_TYPE_INT_RANGE);
        gst_value_set_int_range(&allowed, minimum, 65536);
    }
    const GValue *present = gst_structure_get_value(structure, name);
    if (present == nullptr) {
        gst_structure_set_value(structure, name, &allowed);
    } else if (gst_value_intersect(&common, present, &allowed)) {
        gst_structure_take_value(structure, name, &common);
    } else {
        gst_structure_set_value(structure, name, &allowed);  // neither side can have it, and negotiation says so
    }
    g_value_unset(&allowed);
}
