// The GStreamer element `derain`: raw video in, the same video without rain out.
//
// The base classes do the usual work: caps negotiation, buffer pools, timestamps, flushes, end of stream, and quality
// of service (a frame that is already too late for the sink is dropped before any work goes into it).
#include "element.hpp"

#include "properties.hpp"
#include "rain_gate.hpp"
#include "video.hpp"

#include <string>
#include <vector>

GST_DEBUG_CATEGORY_STATIC(derain_debug);
#define GST_CAT_DEFAULT derain_debug

namespace {

constexpr const char *kCaps = GST_VIDEO_CAPS_MAKE("{ BGR, RGB, BGRx, BGRA, NV12, I420 }");
// The first frames are slower: memory is allocated and kernels are chosen.
constexpr guint64 kWarmUpFrames = 3;

}  // namespace

struct _GstDerain {
    GstVideoFilter parent;

    // Properties; the object lock guards them.
    gchar *model_path, *backend, *engine, *gate_model;
    gint threads;
    gfloat strength, overlay;
    guint64 derained, passed;
    GstClockTime latency;  // longest time of a frame after the first ones, as reported

    // Used by the streaming thread alone, between start and stop.
    derain_model *model;
    derain_model *extractor;  // the attention part of the model, which looks for rain while it is dry; or nullptr
    gint fixed_width, fixed_height, minimum;
    gdouble rain_half;
    std::vector<float> *rain;
    RainGate *gate;
};

G_DEFINE_TYPE(GstDerain, gst_derain, GST_TYPE_VIDEO_FILTER)

namespace {

// Holds the object lock for a block.
class Locked {
  public:
    explicit Locked(GstDerain *self) : self_(self) { GST_OBJECT_LOCK(self_); }
    ~Locked() { GST_OBJECT_UNLOCK(self_); }
    Locked(const Locked &) = delete;
    Locked &operator=(const Locked &) = delete;

  private:
    GstDerain *self_;
};

void replace(gchar *&text, const GValue *value) {
    g_free(text);
    text = g_value_dup_string(value);
}

void set_property(GObject *object, guint id, const GValue *value, GParamSpec *spec) {
    GstDerain *self = GST_DERAIN(object);
    const Locked lock(self);
    switch (id) {
        case kModel: replace(self->model_path, value); break;
        case kBackend: replace(self->backend, value); break;
        case kEngine: replace(self->engine, value); break;
        case kThreads: self->threads = g_value_get_int(value); break;
        case kStrength: self->strength = g_value_get_float(value); break;
        case kOverlay: self->overlay = g_value_get_float(value); break;
        case kGate: self->gate->set_threshold(g_value_get_float(value)); break;
        case kGateInterval: self->gate->set_interval(g_value_get_uint(value)); break;
        case kGateModel: replace(self->gate_model, value); break;
        default: G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
    }
}

void get_property(GObject *object, guint id, GValue *value, GParamSpec *spec) {
    GstDerain *self = GST_DERAIN(object);
    const Locked lock(self);
    switch (id) {
        case kModel: g_value_set_string(value, self->model_path); break;
        case kBackend: g_value_set_string(value, self->backend); break;
        case kEngine: g_value_set_string(value, self->engine); break;
        case kThreads: g_value_set_int(value, self->threads); break;
        case kStrength: g_value_set_float(value, self->strength); break;
        case kOverlay: g_value_set_float(value, self->overlay); break;
        case kGate: g_value_set_float(value, self->gate->threshold()); break;
        case kGateInterval: g_value_set_uint(value, self->gate->interval()); break;
        case kGateModel: g_value_set_string(value, self->gate_model); break;
        case kLatency: g_value_set_uint64(value, self->latency); break;
        case kFramesDerained: g_value_set_uint64(value, self->derained); break;
        case kFramesPassed: g_value_set_uint64(value, self->passed); break;
        default: G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
    }
}

void log_line(derain_log_level level, const char *message, void *user_data) {
    GstDerain *self = GST_DERAIN(user_data);
    if (level == DERAIN_LOG_INFO) {
        GST_INFO_OBJECT(self, "%s", message);
    } else {
        GST_ELEMENT_WARNING(self, LIBRARY, SETTINGS, ("%s", message), (nullptr));
    }
}

// "models/edge.attention.onnx" for "models/edge.onnx" where there is such a file; else empty.
std::string attention_beside(const std::string &model) {
    const size_t dot = model.find_last_of('.');
    if (dot == std::string::npos || model.find('/', dot) != std::string::npos) return "";
    const std::string path = model.substr(0, dot) + ".attention.onnx";
    return g_file_test(path.c_str(), G_FILE_TEST_IS_REGULAR) ? path : "";
}

// Open a model file; a failure is told to the application.
derain_model *open_model(GstDerain *self, const std::string &path, const derain_options &options) {
    derain_model *model = nullptr;
    if (derain_open(path.c_str(), &options, &model) != DERAIN_OK) {
        GST_ELEMENT_ERROR(self, RESOURCE, OPEN_READ, ("%s", derain_last_error()), (nullptr));
    }
    return model;
}

gboolean stop(GstBaseTransform *base) {
    GstDerain *self = GST_DERAIN(base);
    derain_close(self->model);
    derain_close(self->extractor);
    self->model = self->extractor = nullptr;
    self->rain->clear();
    self->rain->shrink_to_fit();
    return TRUE;
}

gboolean start(GstBaseTransform *base) {
    GstDerain *self = GST_DERAIN(base);
    derain_options options;
    derain_options_default(&options);
    const auto text = [](const gchar *value) { return std::string(value == nullptr ? "" : value); };
    std::string path, backend, engine, gate_model;
    {
        const Locked lock(self);
        path = text(self->model_path);
        backend = text(self->backend);
        engine = text(self->engine);
        gate_model = text(self->gate_model);
        options.threads = self->threads;
        self->derained = self->passed = 0;
        self->latency = 0;
        self->gate->reset();
        if (gate_model.empty() && self->gate->threshold() > 0) gate_model = attention_beside(path);
    }
    if (path.empty()) {
        GST_ELEMENT_ERROR(self, RESOURCE, NOT_FOUND, ("No model is set. Write: derain model=edge.onnx"), (nullptr));
        return FALSE;
    }
    options.backend = backend.empty() ? nullptr : backend.c_str();
    options.log = log_line;
    options.log_user_data = self;
    if (!gate_model.empty()) {
        self->extractor = open_model(self, gate_model, options);
        if (self->extractor == nullptr) return FALSE;
    }
    options.engine = engine.empty() ? nullptr : engine.c_str();
    self->model = open_model(self, path, options);
    if (self->model == nullptr) {
        stop(base);
        return FALSE;
    }
    derain_info info;
    derain_info_init(&info);
    derain_get_info(self->model, &info);
    self->fixed_width = info.fixed_width;
    self->fixed_height = info.fixed_height;
    self->minimum = info.minimum;
    self->rain_half = info.rain_half;
    return TRUE;
}

// The same caps on both sides, and only sizes that the model takes, so that a videoscale before it knows what to do.
GstCaps *transform_caps(GstBaseTransform *base, GstPadDirection, GstCaps *caps, GstCaps *filter) {
    GstDerain *self = GST_DERAIN(base);
    GstCaps *result = gst_caps_copy(caps);
    if (self->model != nullptr) {
        for (guint i = 0; i < gst_caps_get_size(result); ++i) {
            GstStructure *structure = gst_caps_get_structure(result, i);
            limit_side(structure, "width", self->fixed_width, self->minimum);
            limit_side(structure, "height", self->fixed_height, self->minimum);
        }
    }
    if (filter == nullptr) return result;
    GstCaps *filtered = gst_caps_intersect_full(filter, result, GST_CAPS_INTERSECT_FIRST);
    gst_caps_unref(result);
    return filtered;
}

// The element's part in a live pipeline's latency: the longest frame so far. A growth by a quarter is worth telling.
void note_time(GstDerain *self, GstClockTime spent) {
    bool tell = false;
    {
        const Locked lock(self);
        if (self->derained > kWarmUpFrames && spent > self->latency + self->latency / 4) {
            self->latency = spent;
            tell = true;
        }
    }
    if (tell) gst_element_post_message(GST_ELEMENT(self), gst_message_new_latency(GST_OBJECT(self)));
}

// Run a model; a failure is told to the application.
bool run(GstDerain *self, derain_model *model, const derain_request &request) {
    if (derain_run_request(model, &request) == DERAIN_OK) return true;
    GST_ELEMENT_ERROR(self, STREAM, FAILED, ("%s", derain_last_error()), (nullptr));
    return false;
}

GstFlowReturn pass(GstDerain *self, GstVideoFrame *input, GstVideoFrame *output) {
    gst_video_frame_copy(output, input);
    const Locked lock(self);
    ++self->passed;
    return GST_FLOW_OK;
}

GstFlowReturn transform_frame(GstVideoFilter *filter, GstVideoFrame *input, GstVideoFrame *output) {
    GstDerain *self = GST_DERAIN(filter);
    derain_request request;
    derain_request_default(&request);
    bool gated, skipped, raining;
    {
        const Locked lock(self);
        request.strength = self->strength;
        request.overlay = self->overlay;
        gated = self->gate->threshold() > 0;
        raining = self->gate->raining();
        skipped = gated && self->gate->skip();
    }
    if (skipped) return pass(self, input, output);
    const derain_frame rainy = describe_frame(*input);
    derain_frame clean = describe_frame(*output);
    request.rainy = &rainy;
    const auto width = static_cast<size_t>(rainy.width), height = static_cast<size_t>(rainy.height);
    if (gated) {
        self->rain->resize(width * height);
        request.rain = self->rain->data();
    }
    const auto is_dry = [&] {
        const float intensity = rain_intensity(*self->rain, width, height, self->rain_half);
        const Locked lock(self);
        return self->gate->is_dry(intensity);
    };
    const gint64 begin = g_get_monotonic_time();
    // While it is dry, or not known yet, the extractor alone is run; while it rains, the whole graph gives the same
    // map.
    if (gated && !raining && self->extractor != nullptr) {
        if (!run(self, self->extractor, request)) return GST_FLOW_ERROR;
        if (is_dry()) return pass(self, input, output);
        gated = false;
    }
    request.clean = &clean;
    if (!run(self, self->model, request)) return GST_FLOW_ERROR;
    if (gated && is_dry()) return pass(self, input, output);
    {
        const Locked lock(self);
        ++self->derained;
    }
    note_time(self, static_cast<GstClockTime>(g_get_monotonic_time() - begin) * GST_USECOND);
    return GST_FLOW_OK;
}

gboolean sink_event(GstBaseTransform *base, GstEvent *event) {
    GstDerain *self = GST_DERAIN(base);
    if (GST_EVENT_TYPE(event) == GST_EVENT_FLUSH_STOP || GST_EVENT_TYPE(event) == GST_EVENT_SEGMENT) {
        const Locked lock(self);
        self->gate->reset();  // the picture after a jump may be a rainy one
    }
    return GST_BASE_TRANSFORM_CLASS(gst_derain_parent_class)->sink_event(base, event);
}

gboolean query(GstBaseTransform *base, GstPadDirection direction, GstQuery *query) {
    const gboolean known = GST_BASE_TRANSFORM_CLASS(gst_derain_parent_class)->query(base, direction, query);
    if (!known || direction != GST_PAD_SRC || GST_QUERY_TYPE(query) != GST_QUERY_LATENCY) return known;
    GstDerain *self = GST_DERAIN(base);
    gboolean live;
    GstClockTime least, most;
    gst_query_parse_latency(query, &live, &least, &most);
    const Locked lock(self);
    least += self->latency;
    if (GST_CLOCK_TIME_IS_VALID(most)) most += self->latency;
    gst_query_set_latency(query, live, least, most);
    return TRUE;
}

void finalize(GObject *object) {
    GstDerain *self = GST_DERAIN(object);
    g_free(self->model_path);
    g_free(self->backend);
    g_free(self->engine);
    g_free(self->gate_model);
    delete self->rain;
    delete self->gate;
    G_OBJECT_CLASS(gst_derain_parent_class)->finalize(object);
}

}  // namespace

static void gst_derain_class_init(GstDerainClass *klass) {
    GST_DEBUG_CATEGORY_INIT(derain_debug, "derain", 0, "derain element");
    GObjectClass *object_class = G_OBJECT_CLASS(klass);
    object_class->set_property = set_property;
    object_class->get_property = get_property;
    object_class->finalize = finalize;
    install_properties(object_class);

    GstBaseTransformClass *transform = GST_BASE_TRANSFORM_CLASS(klass);
    transform->start = start;
    transform->stop = stop;
    transform->transform_caps = transform_caps;
    transform->sink_event = sink_event;
    transform->query = query;
    GST_VIDEO_FILTER_CLASS(klass)->transform_frame = transform_frame;

    GstElementClass *element = GST_ELEMENT_CLASS(klass);
    gst_element_class_set_static_metadata(element, "Derain", "Filter/Effect/Video",
                                          "Removes rain from video with a neural network", "The derain developers");
    GstCaps *caps = gst_caps_from_string(kCaps);
    gst_element_class_add_pad_template(element, gst_pad_template_new("sink", GST_PAD_SINK, GST_PAD_ALWAYS, caps));
    gst_element_class_add_pad_template(element, gst_pad_template_new("src", GST_PAD_SRC, GST_PAD_ALWAYS, caps));
    gst_caps_unref(caps);
}

static void gst_derain_init(GstDerain *self) {
    self->strength = 1;
    self->rain = new std::vector<float>;
    self->gate = new RainGate;
    gst_base_transform_set_qos_enabled(GST_BASE_TRANSFORM(self), TRUE);
}
