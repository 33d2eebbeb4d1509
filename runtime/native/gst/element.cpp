// The GStreamer element `derain`: raw video in, the same video without rain out.
//
// The base classes do the usual work: caps negotiation, buffer pools, timestamps, flushes, end of stream, and quality
// of service (a frame that is already too late for the sink is dropped before any work goes into it).
#include "element.hpp"

#include "rain_gate.hpp"
#include "video.hpp"

#include <algorithm>
#include <vector>

GST_DEBUG_CATEGORY_STATIC(derain_debug);
#define GST_CAT_DEFAULT derain_debug

namespace {

constexpr const char *kCaps = GST_VIDEO_CAPS_MAKE("{ BGR, RGB, BGRx, BGRA, NV12, I420 }");
// The first frames are slower: memory is allocated and kernels are chosen.
constexpr guint64 kWarmUpFrames = 3;

enum Property {
    kModel = 1,
    kBackend,
    kEngine,
    kThreads,
    kStrength,
    kOverlay,
    kGate,
    kGateInterval,
    kLatency,
    kFramesDerained,
    kFramesPassed
};

}  // namespace

struct _GstDerain {
    GstVideoFilter parent;

    // Properties; the object lock guards them.
    gchar *model_path, *backend, *engine;
    gint threads;
    gfloat strength, overlay;
    guint64 derained, passed;
    GstClockTime latency;  // longest time of a frame after the first ones, as reported

    // Used by the streaming thread alone, between start and stop.
    derain_model *model;
    gint fixed_width, fixed_height, minimum;
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

gboolean start(GstBaseTransform *base) {
    GstDerain *self = GST_DERAIN(base);
    derain_options options;
    derain_options_init(&options);
    gchar *path, *backend, *engine;
    {
        const Locked lock(self);
        path = g_strdup(self->model_path);
        backend = g_strdup(self->backend);
        engine = g_strdup(self->engine);
        options.threads = self->threads;
        self->derained = self->passed = 0;
        self->latency = 0;
        self->gate->reset();
    }
    options.backend = backend;
    options.engine = engine;
    options.log = log_line;
    options.log_user_data = self;
    derain_status status = DERAIN_BAD_ARGUMENT;
    if (path == nullptr) {
        GST_ELEMENT_ERROR(self, RESOURCE, NOT_FOUND, ("No model is set. Write: derain model=edge.onnx"), (nullptr));
    } else {
        status = derain_open(path, &options, &self->model);
        if (status != DERAIN_OK) {
            GST_ELEMENT_ERROR(self, RESOURCE, OPEN_READ, ("%s", derain_last_error()), (nullptr));
        }
    }
    g_free(path);
    g_free(backend);
    g_free(engine);
    if (status != DERAIN_OK) return FALSE;
    derain_info info;
    derain_info_init(&info);
    derain_get_info(self->model, &info);
    self->fixed_width = info.fixed_width;
    self->fixed_height = info.fixed_height;
    self->minimum = info.minimum;
    return TRUE;
}

gboolean stop(GstBaseTransform *base) {
    GstDerain *self = GST_DERAIN(base);
    derain_close(self->model);
    self->model = nullptr;
    self->rain->clear();
    self->rain->shrink_to_fit();
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

GstFlowReturn transform_frame(GstVideoFilter *filter, GstVideoFrame *input, GstVideoFrame *output) {
    GstDerain *self = GST_DERAIN(filter);
    derain_request request;
    derain_request_init(&request);
    bool gated;
    {
        const Locked lock(self);
        request.strength = self->strength;
        request.overlay = self->overlay;
        gated = self->gate->threshold() > 0;
        if (gated && self->gate->skip()) {
            ++self->passed;
            gst_video_frame_copy(output, input);
            return GST_FLOW_OK;
        }
    }
    const derain_frame rainy = describe_frame(*input);
    derain_frame clean = describe_frame(*output);
    request.rainy = &rainy;
    request.clean = &clean;
    if (gated) {
        self->rain->resize(static_cast<size_t>(rainy.width) * static_cast<size_t>(rainy.height));
        request.rain = self->rain->data();
    }
    const gint64 begin = g_get_monotonic_time();
    if (derain_run_request(self->model, &request) != DERAIN_OK) {
        GST_ELEMENT_ERROR(self, STREAM, FAILED, ("%s", derain_last_error()), (nullptr));
        return GST_FLOW_ERROR;
    }
    bool dry = false;
    {
        const Locked lock(self);
        if (gated) dry = self->gate->is_dry(*self->rain);
        ++(dry ? self->passed : self->derained);
    }
    if (dry) gst_video_frame_copy(output, input);
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
    delete self->rain;
    delete self->gate;
    G_OBJECT_CLASS(gst_derain_parent_class)->finalize(object);
}

void install_properties(GObjectClass *object_class) {
    const auto at_rest = static_cast<GParamFlags>(G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY);
    const auto any_time = static_cast<GParamFlags>(G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS |
                                                   GST_PARAM_MUTABLE_PLAYING | GST_PARAM_CONTROLLABLE);
    const auto told = static_cast<GParamFlags>(G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);
    const auto install = [&](Property id, GParamSpec *spec) {
        g_object_class_install_property(object_class, id, spec);
    };
    install(kModel, g_param_spec_string("model", "Model", "File written by derain export", nullptr, at_rest));
    install(kBackend, g_param_spec_string("backend", "Backend", "Inference engine; the best one of this build if unset",
                                          nullptr, at_rest));
    install(kEngine,
            g_param_spec_string("engine", "Engine", "TensorRT engine file; the model's name with .engine if unset",
                                nullptr, at_rest));
    install(kThreads, g_param_spec_int("threads", "Threads", "CPU threads of one frame; 0 for the physical cores", 0,
                                       1024, 0, at_rest));
    install(kStrength,
            g_param_spec_float("strength", "Strength", "0 shows the input, 1 the derained frame", 0, 1, 1, any_time));
    install(kOverlay, g_param_spec_float("overlay", "Overlay", "Paint what the model takes for rain in red, 0 to 1", 0,
                                         1, 0, any_time));
    install(kGate, g_param_spec_float("gate", "Gate",
                                      "Pass frames unchanged whose mean rain is below this, 0 to 1; 0 derains all", 0,
                                      1, 0, any_time));
    install(kGateInterval, g_param_spec_uint("gate-interval", "Gate interval",
                                             "Once it is dry, look at every n-th frame only", 1, 1000, 15, any_time));
    install(kLatency,
            g_param_spec_uint64("latency", "Latency", "Longest time of a frame, nanoseconds", 0, G_MAXUINT64, 0, told));
    install(kFramesDerained, g_param_spec_uint64("frames-derained", "Frames derained", "Since the element was started",
                                                 0, G_MAXUINT64, 0, told));
    install(kFramesPassed, g_param_spec_uint64("frames-passed", "Frames passed",
                                               "Passed unchanged because they were dry, since the element was started",
                                               0, G_MAXUINT64, 0, told));
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
