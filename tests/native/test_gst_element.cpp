// The element inside pipelines, driven as applications drive it: states, seeks with flush, quality of service, latency,
// properties that change while it plays. Run by test_native_gstreamer.py with a model file.
#include "check.hpp"

#include <gst/gst.h>

#include <memory>
#include <vector>

namespace {

using Pipeline = std::unique_ptr<GstElement, void (*)(GstElement *)>;

Pipeline launch(const std::string &description) {
    GError *error = nullptr;
    GstElement *element = gst_parse_launch(description.c_str(), &error);
    if (error != nullptr) std::cerr << error->message << "\n";
    CHECK(element != nullptr && error == nullptr);
    return {element, [](GstElement *one) {
                gst_element_set_state(one, GST_STATE_NULL);
                gst_object_unref(one);
            }};
}

void reach(const Pipeline &pipeline, GstState state) {
    CHECK(gst_element_set_state(pipeline.get(), state) != GST_STATE_CHANGE_FAILURE);
    CHECK_EQUAL(gst_element_get_state(pipeline.get(), nullptr, nullptr, 20 * GST_SECOND), GST_STATE_CHANGE_SUCCESS);
}

// The next message of a type within 20 seconds; an error message ends the test.
GstMessage *wait_for(const Pipeline &pipeline, GstMessageType type) {
    GstBus *bus = gst_element_get_bus(pipeline.get());
    GstMessage *message =
        gst_bus_timed_pop_filtered(bus, 20 * GST_SECOND, static_cast<GstMessageType>(type | GST_MESSAGE_ERROR));
    gst_object_unref(bus);
    CHECK(message != nullptr);
    if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR && type != GST_MESSAGE_ERROR) {
        GError *error = nullptr;
        gst_message_parse_error(message, &error, nullptr);
        std::cerr << "the pipeline failed: " << error->message << "\n";
        std::exit(1);
    }
    return message;
}

guint64 count(const Pipeline &pipeline, const char *property) {
    GstElement *element = gst_bin_get_by_name(GST_BIN(pipeline.get()), "d");
    guint64 value = 0;
    g_object_get(element, property, &value, nullptr);
    gst_object_unref(element);
    return value;
}

void starts_and_stops_again(const std::string &derain) {
    const Pipeline pipeline = launch("videotestsrc ! video/x-raw,width=64,height=48 ! " + derain + " ! fakesink");
    for (int i = 0; i < 3; ++i) {
        reach(pipeline, GST_STATE_PLAYING);
        reach(pipeline, GST_STATE_NULL);
    }
}

void seeks_with_flush(const std::string &derain) {
    const Pipeline pipeline =
        launch("videotestsrc num-buffers=100000 ! video/x-raw,width=64,height=48,framerate=30/1 ! " + derain +
               " ! fakesink sync=false");
    reach(pipeline, GST_STATE_PLAYING);
    for (int second = 5; second > 0; --second) {
        CHECK(gst_element_seek_simple(pipeline.get(), GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH,
                                      second * static_cast<gint64>(GST_SECOND)));
        CHECK_EQUAL(gst_element_get_state(pipeline.get(), nullptr, nullptr, 20 * GST_SECOND), GST_STATE_CHANGE_SUCCESS);
        gint64 position = 0;
        CHECK(gst_element_query_position(pipeline.get(), GST_FORMAT_TIME, &position));
        CHECK(position >= second * static_cast<gint64>(GST_SECOND));
    }
}

// More frames than any machine can derain: the late ones are dropped before the network, with a message.
void drops_late_frames(const std::string &derain) {
    const Pipeline pipeline =
        launch("videotestsrc is-live=true ! video/x-raw,width=1280,height=720,framerate=2000/1 ! " + derain +
               " ! fakesink sync=true qos=true max-lateness=1000000");
    reach(pipeline, GST_STATE_PLAYING);
    GstMessage *message = wait_for(pipeline, GST_MESSAGE_QOS);
    gst_message_unref(message);
}

void reports_latency(const std::string &derain) {
    const Pipeline pipeline = launch("videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=30/1 ! " +
                                     derain + " ! fakesink name=sink sync=true");
    reach(pipeline, GST_STATE_PLAYING);
    gst_message_unref(wait_for(pipeline, GST_MESSAGE_LATENCY));
    while (count(pipeline, "latency") == 0) g_usleep(10'000);
    GstElement *sink = gst_bin_get_by_name(GST_BIN(pipeline.get()), "sink");
    GstPad *pad = gst_element_get_static_pad(sink, "sink");
    GstQuery *query = gst_query_new_latency();
    CHECK(gst_pad_peer_query(pad, query));
    gboolean live = FALSE;
    GstClockTime least = 0;
    gst_query_parse_latency(query, &live, &least, nullptr);
    CHECK(live);
    // The source has a frame's duration of its own.
    CHECK(least >= count(pipeline, "latency") + GST_SECOND / 31);
    gst_query_unref(query);
    gst_object_unref(pad);
    gst_object_unref(sink);
}

void changes_properties_while_playing(const std::string &derain) {
    const Pipeline pipeline = launch("videotestsrc ! video/x-raw,width=64,height=48 ! " + derain + " ! fakesink");
    reach(pipeline, GST_STATE_PLAYING);
    GstElement *element = gst_bin_get_by_name(GST_BIN(pipeline.get()), "d");
    for (int i = 0; i < 50; ++i) {
        g_object_set(element, "strength", (i % 11) / 10.0F, "overlay", (i % 7) / 10.0F, "gate", (i % 5) / 5.0F,
                     nullptr);
        g_usleep(1000);
    }
    gst_object_unref(element);
    reach(pipeline, GST_STATE_PAUSED);
}

void gate_passes_dry_frames(const std::string &derain) {
    const Pipeline pipeline = launch("videotestsrc num-buffers=40 pattern=black ! video/x-raw,width=64,height=48 ! " +
                                     derain + " gate=0.5 gate-interval=10 ! fakesink");
    reach(pipeline, GST_STATE_PLAYING);
    gst_message_unref(wait_for(pipeline, GST_MESSAGE_EOS));
    CHECK_EQUAL(count(pipeline, "frames-passed"), 40U);
    CHECK_EQUAL(count(pipeline, "frames-derained"), 0U);
}

// The times of the buffers that pass a pad of the element.
void watch(const Pipeline &pipeline, const char *name, std::vector<GstClockTime> &times) {
    GstElement *element = gst_bin_get_by_name(GST_BIN(pipeline.get()), "d");
    GstPad *pad = gst_element_get_static_pad(element, name);
    const GstPadProbeCallback note = [](GstPad *, GstPadProbeInfo *info, gpointer data) {
        const GstBuffer *buffer = GST_PAD_PROBE_INFO_BUFFER(info);
        auto &found = *static_cast<std::vector<GstClockTime> *>(data);
        found.insert(found.end(), {GST_BUFFER_PTS(buffer), GST_BUFFER_DURATION(buffer), GST_BUFFER_OFFSET(buffer)});
        return GST_PAD_PROBE_OK;
    };
    gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, note, &times, nullptr);
    gst_object_unref(pad);
    gst_object_unref(element);
}

void keeps_timestamps(const std::string &derain) {
    std::vector<GstClockTime> before, after;
    const Pipeline pipeline = launch(
        "videotestsrc num-buffers=7 timestamp-offset=40000000 ! "
        "video/x-raw,width=64,height=48,framerate=30000/1001 ! " +
        derain + " ! fakesink");
    watch(pipeline, "sink", before);
    watch(pipeline, "src", after);
    reach(pipeline, GST_STATE_PLAYING);
    gst_message_unref(wait_for(pipeline, GST_MESSAGE_EOS));
    CHECK_EQUAL(before.size(), 21U);
    CHECK_EQUAL(before[0], 40'000'000U);
    CHECK(before == after);
}

void refuses_without_a_model() {
    const Pipeline pipeline = launch("videotestsrc ! derain ! fakesink");
    gst_element_set_state(pipeline.get(), GST_STATE_PLAYING);
    GstMessage *message = wait_for(pipeline, GST_MESSAGE_ERROR);
    GError *error = nullptr;
    gst_message_parse_error(message, &error, nullptr);
    CHECK(contains(error->message, "model=edge.onnx"));
    g_error_free(error);
    gst_message_unref(message);
}

}  // namespace

int main(int argument_count, char **arguments) {
    CHECK(argument_count == 2);
    gst_init(nullptr, nullptr);
    const std::string derain = "derain name=d model=" + std::string(arguments[1]);
    starts_and_stops_again(derain);
    seeks_with_flush(derain);
    drops_late_frames(derain);
    reports_latency(derain);
    changes_properties_while_playing(derain);
    gate_passes_dry_frames(derain);
    keeps_timestamps(derain);
    refuses_without_a_model();
    gst_deinit();
}
