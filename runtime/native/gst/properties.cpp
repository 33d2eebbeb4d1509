#include "properties.hpp"

#include <gst/gst.h>

void install_properties(GObjectClass *object_class) {
    const auto at_rest = static_cast<GParamFlags>(G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY);
    const auto any_time = static_cast<GParamFlags>(G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS |
                                                   GST_PARAM_MUTABLE_PLAYING | GST_PARAM_CONTROLLABLE);
    const auto told = static_cast<GParamFlags>(G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);
    const auto install = [&](Property id, GParamSpec *spec) {
        g_object_class_install_property(object_class, id, spec);
    };
    install(kModel, g_param_spec_string("model", "Model", "File written by derain export, or an engine of derain build",
                                        nullptr, at_rest));
    install(kBackend, g_param_spec_string(
                          "backend", "Backend",
                          "Inference engine: tensorrt, openvino or onnxruntime; the best one of this build if unset",
                          nullptr, at_rest));
    install(kEngine, g_param_spec_string("engine", "Engine",
                                         "TensorRT engine file; the one beside the model or in derain's cache if unset",
                                         nullptr, at_rest));
    install(kThreads, g_param_spec_int("threads", "Threads", "CPU threads of one frame; 0 for the physical cores", 0,
                                       1024, 0, at_rest));
    install(kStrength,
            g_param_spec_float("strength", "Strength", "0 shows the input, 1 the derained frame", 0, 1, 1, any_time));
    install(kOverlay, g_param_spec_float("overlay", "Overlay", "Paint what the model takes for rain in red, 0 to 1", 0,
                                         1, 0, any_time));
    install(kGate, g_param_spec_float("gate", "Gate",
                                      "Pass frames unchanged whose rain intensity is below this, 0 to 1 (0.5 is an "
                                      "ordinary shower); 0 derains all",
                                      0, 1, 0, any_time));
    install(kGateInterval, g_param_spec_uint("gate-interval", "Gate interval",
                                             "Once it is dry, look at every n-th frame only", 1, 1000, 15, any_time));
    install(kGateModel, g_param_spec_string("gate-model", "Gate model",
                                            "Attention part of the model, which looks for rain while it is dry; "
                                            "NAME.attention.onnx beside the model if unset",
                                            nullptr, at_rest));
    install(kLatency,
            g_param_spec_uint64("latency", "Latency", "Longest time of a frame, nanoseconds", 0, G_MAXUINT64, 0, told));
    install(kFramesDerained,
            g_param_spec_uint64("frames-derained", "Frames derained", "Frames derained since the element was started",
                                0, G_MAXUINT64, 0, told));
    install(kFramesPassed,
            g_param_spec_uint64("frames-passed", "Frames passed",
                                "Frames passed unchanged because they were dry, since the element was started", 0,
                                G_MAXUINT64, 0, told));
}
