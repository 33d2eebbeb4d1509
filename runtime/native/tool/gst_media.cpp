#include "gst_media.hpp"

#include "../gst/video.hpp"

#include <gst/app/gstappsink.h>
#include <gst/app/gstappsrc.h>
#include <gst/gst.h>

#include <cstring>
#include <set>
#include <stdexcept>

namespace {

// What a file's ending asks for, and Debian's package of its encoder.
struct Encoding {
    const char *ending;
    bool video;
    const char *elements;
    const char *package;
};

constexpr Encoding kEncodings[] = {
    {".png", false, "pngenc", "gstreamer1.0-plugins-good"},
    {".jpg", false, "jpegenc quality=95", "gstreamer1.0-plugins-good"},
    {".jpeg", false, "jpegenc quality=95", "gstreamer1.0-plugins-good"},
    {".mp4", true, "x264enc pass=qual quantizer=18 ! mp4mux", "gstreamer1.0-plugins-ugly"},
    {".mov", true, "x264enc pass=qual quantizer=18 ! qtmux", "gstreamer1.0-plugins-ugly"},
    {".mkv", true, "x264enc pass=qual quantizer=18 ! matroskamux", "gstreamer1.0-plugins-ugly"},
    {".webm", true,
     "vp8enc deadline=1 cpu-used=4 end-usage=cq cq-level=8 max-quantizer=24 target-bitrate=100000000 ! webmmux",
     "gstreamer1.0-plugins-good"},
    {".avi", true, "jpegenc quality=95 ! avimux", "gstreamer1.0-plugins-good"},
};

bool is_picture_name(const std::string &path) {
    static const std::set<std::string> endings = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"};
    return endings.count(ending_of(path)) != 0;
}

constexpr GstClockTime kPatience = 20 * GST_MSECOND;  // between two looks whether the pipeline has failed
constexpr guint64 kMaxWaiting = 64'000'000;           // bytes of frames that wait for the encoder

template <typename T>
struct Unref {
    void operator()(T *one) const { gst_object_unref(one); }
};
template <typename T>
using Object = std::unique_ptr<T, Unref<T>>;

struct UnrefSample {
    void operator()(GstSample *one) const { gst_sample_unref(one); }
};
using Sample = std::unique_ptr<GstSample, UnrefSample>;

// A pipeline of which we are one end.
class Pipeline {
  public:
    Pipeline(const std::string &description, const std::string &path, const std::string &advice)
        : path_(path), advice_(advice) {
        gst_init(nullptr, nullptr);
        GError *error = nullptr;
        pipeline_.reset(gst_parse_launch(description.c_str(), &error));
        if (error != nullptr) reject(error);
    }
    ~Pipeline() {
        if (pipeline_) gst_element_set_state(pipeline_.get(), GST_STATE_NULL);
    }
    Pipeline(const Pipeline &) = delete;
    Pipeline &operator=(const Pipeline &) = delete;

    Object<GstElement> element(const char *name) const {
        return Object<GstElement>(gst_bin_get_by_name(GST_BIN(pipeline_.get()), name));
    }

    void play() const { gst_element_set_state(pipeline_.get(), GST_STATE_PLAYING); }

    // Throws what an error message on the bus tells, if there is one. With `wait` it waits for that or for the end.
    void require_no_error(bool wait) const {
        const Object<GstBus> bus(gst_element_get_bus(pipeline_.get()));
        const auto kinds = static_cast<GstMessageType>(GST_MESSAGE_ERROR | (wait ? GST_MESSAGE_EOS : 0));
        GstMessage *message = gst_bus_timed_pop_filtered(bus.get(), wait ? GST_CLOCK_TIME_NONE : 0, kinds);
        if (message == nullptr) return;
        GError *error = nullptr;
        if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR) gst_message_parse_error(message, &error, nullptr);
        gst_message_unref(message);
        if (error != nullptr) reject(error);
    }

    [[noreturn]] void reject(const std::string &why) const { throw std::runtime_error("'" + path_ + "' " + why); }

  private:
    // Where GStreamer lacks an element or does not know a format, another package may help.
    [[noreturn]] void reject(GError *error) const {
        const bool helps =
            error->domain == GST_CORE_ERROR || error->domain == GST_STREAM_ERROR || error->domain == GST_PARSE_ERROR;
        std::string why = error->message;
        if (!why.empty() && why.back() == '.') why.pop_back();
        g_error_free(error);
        reject("fails in GStreamer: " + why + "." + (helps ? " " + advice_ : ""));
    }

    std::string path_, advice_;
    Object<GstElement> pipeline_;
};

// Rows of one frame into another of the same format and size.
void copy_planes(const derain_frame &from, const derain_frame &to) {
    const bool planes = from.format == DERAIN_FORMAT_I420;
    for (int plane = 0; plane < (planes ? 3 : 1); ++plane) {
        const auto half = [&](int side) { return static_cast<size_t>(plane == 0 ? side : (side + 1) / 2); };
        const size_t row = planes ? half(from.width) : 3 * half(from.width), rows = half(from.height);
        const size_t stride = from.stride[plane] != 0 ? from.stride[plane] : row;
        const size_t to_stride = to.stride[plane] != 0 ? to.stride[plane] : row;
        for (size_t y = 0; y < rows; ++y) {
            std::memcpy(static_cast<uint8_t *>(to.plane[plane]) + y * to_stride,
                        static_cast<const uint8_t *>(from.plane[plane]) + y * stride, row);
        }
    }
}

class GstSource : public Source {
  public:
    explicit GstSource(const std::string &path)
        : pipeline_(std::string("filesrc name=file ! decodebin ! "
                                "videoconvert ! video/x-raw,format=") +
                        (is_picture_name(path) ? "RGB" : "I420") + " ! appsink name=frames sync=false max-buffers=4",
                    path,
                    "If it is a picture or a video, its decoder may be in: apt install gstreamer1.0-plugins-good "
                    "gstreamer1.0-libav"),
          frames_(pipeline_.element("frames")) {
        g_object_set(pipeline_.element("file").get(), "location", path.c_str(), nullptr);
        form_.is_video = !is_picture_name(path);
        pipeline_.play();
        next_ = pull();
        if (next_ == nullptr) pipeline_.reject("has no frame");
        if (!gst_video_info_from_caps(&info_, gst_sample_get_caps(next_.get())))
            pipeline_.reject("has frames without a form");
        form_.width = GST_VIDEO_INFO_WIDTH(&info_);
        form_.height = GST_VIDEO_INFO_HEIGHT(&info_);
        form_.colour = colour_of(info_);
        form_.rate_over = GST_VIDEO_INFO_FPS_N(&info_);
        form_.rate_under = GST_VIDEO_INFO_FPS_D(&info_);
        if (!is_usable(form_)) pipeline_.reject("has no usable size");
    }
    bool read(Picture &picture) override {
        if (next_ == nullptr) return false;
        GstVideoInfo info;
        if (!gst_video_info_from_caps(&info, gst_sample_get_caps(next_.get())) ||
            GST_VIDEO_INFO_WIDTH(&info) != form_.width || GST_VIDEO_INFO_HEIGHT(&info) != form_.height) {
            pipeline_.reject("changes its size on the way, which derain-native does not follow");
        }
        GstBuffer *buffer = gst_sample_get_buffer(next_.get());
        GstVideoFrame frame;
        if (!gst_video_frame_map(&frame, &info, buffer, GST_MAP_READ))
            pipeline_.reject("has a frame that cannot be read");
        copy_planes(describe_frame(frame), picture.frame);
        gst_video_frame_unmap(&frame);
        const guint64 time =
            gst_segment_to_running_time(gst_sample_get_segment(next_.get()), GST_FORMAT_TIME, GST_BUFFER_PTS(buffer));
        if (GST_CLOCK_TIME_IS_VALID(time)) picture.frame.timestamp = static_cast<int64_t>(time);
        next_ = form_.is_video ? pull() : nullptr;
        return true;
    }

  private:
    // The next frame, or nullptr at the end.
    Sample pull() {
        GstAppSink *frames = GST_APP_SINK(frames_.get());
        while (true) {  // an error does not end the wait for a frame
            Sample sample(gst_app_sink_try_pull_sample(frames, kPatience));
            if (sample != nullptr) return sample;
            pipeline_.require_no_error(false);
            if (gst_app_sink_is_eos(frames)) return nullptr;
        }
    }

    Pipeline pipeline_;
    Object<GstElement> frames_;
    GstVideoInfo info_;
    Sample next_;
};

const Encoding &encoding_for(const std::string &path, bool video) {
    std::string known;
    for (const Encoding &one : kEncodings) {
        if (one.video != video) continue;
        if (one.ending == ending_of(path)) return one;
        known += std::string(one.ending) + ", ";
    }
    throw std::runtime_error("'" + path + "' has no ending for " + (video ? "a video" : "a picture") +
                             ". Expected one of: " + known + (video ? ".y4m" : ".ppm"));
}

// The colours of the frames in GStreamer's terms; sRGB's are its own default for RGB.
void set_colours(GstVideoInfo &info, const Form &form) {
    if (!form.is_video) return;
    const bool full = form.colour == DERAIN_COLOUR_BT601_FULL || form.colour == DERAIN_COLOUR_BT709_FULL;
    const bool high = form.colour == DERAIN_COLOUR_BT709_LIMITED || form.colour == DERAIN_COLOUR_BT709_FULL;
    gst_video_colorimetry_from_string(&info.colorimetry,
                                      high ? GST_VIDEO_COLORIMETRY_BT709 : GST_VIDEO_COLORIMETRY_BT601);
    if (full) info.colorimetry.range = GST_VIDEO_COLOR_RANGE_0_255;
}

class GstSink : public Sink {
  public:
    GstSink(const std::string &path, const Form &form) : GstSink(path, form, encoding_for(path, form.is_video)) {}

    void write(const Picture &picture) override {
        GstBuffer *buffer = gst_buffer_new_allocate(nullptr, GST_VIDEO_INFO_SIZE(&info_), nullptr);
        GstVideoFrame frame;
        if (buffer == nullptr || !gst_video_frame_map(&frame, &info_, buffer, GST_MAP_WRITE)) {
            pipeline_.reject("finds no memory for a frame");
        }
        copy_planes(picture.frame, describe_frame(frame));
        gst_video_frame_unmap(&frame);
        GST_BUFFER_PTS(buffer) = static_cast<GstClockTime>(picture.frame.timestamp);
        // Without a duration, MP4 would end before its last frame.
        if (info_.fps_n > 0) {
            GST_BUFFER_DURATION(buffer) = gst_util_uint64_scale_int(GST_SECOND, info_.fps_d, info_.fps_n);
        }
        while (gst_app_src_get_current_level_bytes(GST_APP_SRC(frames_.get())) > kMaxWaiting) {
            pipeline_.require_no_error(false);
            g_usleep(kPatience / GST_USECOND);
        }
        if (gst_app_src_push_buffer(GST_APP_SRC(frames_.get()), buffer) != GST_FLOW_OK) {
            pipeline_.require_no_error(false);
            pipeline_.reject("takes no more frames");
        }
        pipeline_.require_no_error(false);
    }

    void finish() override {
        gst_app_src_end_of_stream(GST_APP_SRC(frames_.get()));
        pipeline_.require_no_error(true);
        file_.rename();
    }

  private:
    GstSink(const std::string &path, const Form &form, const Encoding &encoding)
        : file_(path),
          pipeline_(std::string("appsrc name=frames format=time max-bytes=0 ! videoconvert ! ") + encoding.elements +
                        " ! filesink name=file",
                    path, std::string("The encoder is in: apt install ") + encoding.package),
          frames_(pipeline_.element("frames")) {
        g_object_set(pipeline_.element("file").get(), "location", file_.partial().c_str(), nullptr);
        gst_video_info_set_format(&info_, form.is_video ? GST_VIDEO_FORMAT_I420 : GST_VIDEO_FORMAT_RGB,
                                  static_cast<guint>(form.width), static_cast<guint>(form.height));
        info_.fps_n = form.rate_over;
        info_.fps_d = form.rate_under;
        set_colours(info_, form);
        GstCaps *caps = gst_video_info_to_caps(&info_);
        gst_app_src_set_caps(GST_APP_SRC(frames_.get()), caps);
        gst_caps_unref(caps);
        pipeline_.play();
    }

    PartialFile file_;
    Pipeline pipeline_;
    Object<GstElement> frames_;
    GstVideoInfo info_;
};

}  // namespace

std::unique_ptr<Source> open_gst_source(const std::string &path) {
    return std::make_unique<GstSource>(path);
}

std::unique_ptr<Sink> open_gst_sink(const std::string &path, const Form &form) {
    return std::make_unique<GstSink>(path, form);
}
