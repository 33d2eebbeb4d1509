// What makes a shared object a GStreamer plugin.
#include "element.hpp"

#define PACKAGE "derain"
// GStreamer loads no plugin whose licence it does not know, and older ones do not know this one.
#if GST_CHECK_VERSION(1, 22, 0)
#define LICENCE "Apache 2.0"
#else
#define LICENCE GST_LICENSE_UNKNOWN
#endif

static gboolean plugin_init(GstPlugin *plugin) {
    return gst_element_register(plugin, "derain", GST_RANK_NONE, gst_derain_get_type());
}

GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, derain, "Rain removal by neural networks", plugin_init,
                  DERAIN_VERSION, LICENCE, "derain", "derain")
