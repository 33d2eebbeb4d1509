// derain-native: libderain from the command line. It uses nothing but derain.h, as an application would.
#include "media.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <stdexcept>

namespace {

constexpr const char *kUsage =
    "derain-native: remove rain without Python\n"
    "\n"
    "  derain-native run MODEL.onnx IN OUT     a picture or a video, see below\n"
    "  derain-native bench MODEL.onnx          frames a second on this machine\n"
    "  derain-native info MODEL.onnx           what the model is, and what would run it\n"
    "  derain-native --version                 of the library, and the engines in this build\n"
    "\n"
    "  --backend NAME     an engine of this build; the best one otherwise\n"
    "  --engine FILE      TensorRT's engine file; the one beside MODEL or in derain's cache otherwise\n"
    "  --threads N        CPU threads; the physical cores otherwise\n"
    "  --strength S       run: 0 (input) to 1 (derained)\n"
    "  --overlay S        run: 0 to 1, paint what counts as rain in red\n"
    "  --size WxH         bench: 1280x720 otherwise\n"
    "  --frames N         bench: 200 otherwise\n"
    "  --format F         bench: bgr, rgb, bgra, nv12 or i420; bgr otherwise\n"
    "\n"
    "IN and OUT are PPM pictures (.ppm) or YUV4MPEG2 videos (.y4m), and '-' is standard input or output:\n"
    "  ffmpeg -i in.mp4 -f yuv4mpegpipe -pix_fmt yuv420p - | derain-native run edge.onnx - - | ffmpeg -i - out.mp4\n"
#ifdef DERAIN_WITH_GSTREAMER
    "or what this machine's GStreamer decodes, and .png, .jpg, .mp4, .mov, .mkv, .webm, .avi (without sound):\n"
    "  derain-native run edge.onnx rainy.mp4 clean.mp4\n"
#else
    "(built without GStreamer, which would read and write other files too)\n"
#endif
    ;

struct UsageError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Arguments {
    std::vector<std::string> words;
    std::string backend, engine;
    int threads = 0, width = 1280, height = 720, frames = 200;
    float strength = 1, overlay = 0;
    derain_format format = DERAIN_FORMAT_BGR;
    bool help = false;
};

int whole(const std::string &name, const std::string &text) {
    char *end = nullptr;
    const long value = std::strtol(text.c_str(), &end, 10);
    if (text.empty() || *end != '\0' || value < 1 || value > 1'000'000) {
        throw UsageError(name + " is '" + text + "'; expected a number from 1 on");
    }
    return static_cast<int>(value);
}

float fraction(const std::string &name, const std::string &text) {
    char *end = nullptr;
    const float value = std::strtof(text.c_str(), &end);
    if (text.empty() || *end != '\0' || !(value >= 0 && value <= 1)) {
        throw UsageError(name + " is '" + text + "'; expected 0 to 1");
    }
    return value;
}

derain_format format_named(const std::string &name) {
    const char *const names[] = {"bgr", "rgb", "bgra", "nv12", "i420"};
    for (int i = 0; i < 5; ++i) {
        if (name == names[i]) return static_cast<derain_format>(DERAIN_FORMAT_BGR + i);
    }
    throw UsageError("--format is '" + name + "'; expected bgr, rgb, bgra, nv12 or i420");
}

Arguments parse(int count, char **values) {
    Arguments arguments;
    for (int i = 1; i < count; ++i) {
        const std::string name = values[i];
        if (name == "--help" || name == "-h") {
            arguments.help = true;
            return arguments;
        }
        if (name == "--version") {
            arguments.words = {"version"};
            return arguments;
        }
        if (name.compare(0, 2, "--") != 0) {
            arguments.words.push_back(name);
            continue;
        }
        if (i + 1 == count) throw UsageError(name + " needs a value, or does not exist; see derain-native --help");
        const std::string value = values[++i];
        if (name == "--backend") {
            arguments.backend = value;
        } else if (name == "--engine") {
            arguments.engine = value;
        } else if (name == "--threads") {
            arguments.threads = whole(name, value);
        } else if (name == "--strength") {
            arguments.strength = fraction(name, value);
        } else if (name == "--overlay") {
            arguments.overlay = fraction(name, value);
        } else if (name == "--frames") {
            arguments.frames = whole(name, value);
        } else if (name == "--format") {
            arguments.format = format_named(value);
        } else if (name == "--size") {
            const size_t cross = value.find('x');
            if (cross == std::string::npos) throw UsageError("--size is '" + value + "'; expected WIDTHxHEIGHT");
            arguments.width = whole(name, value.substr(0, cross));
            arguments.height = whole(name, value.substr(cross + 1));
        } else {
            throw UsageError("there is no option " + name + "; see derain-native --help");
        }
    }
    return arguments;
}

void check(derain_status status) {
    if (status != DERAIN_OK) throw std::runtime_error(derain_last_error());
}

void print_log(derain_log_level level, const char *message, void *) {
    if (level <= DERAIN_LOG_WARNING) std::fprintf(stderr, "derain-native: %s\n", message);
}

using ModelHandle = std::unique_ptr<derain_model, decltype(&derain_close)>;

ModelHandle open_model(const Arguments &arguments) {
    derain_options options;
    derain_options_default(&options);
    options.backend = arguments.backend.empty() ? nullptr : arguments.backend.c_str();
    options.engine = arguments.engine.empty() ? nullptr : arguments.engine.c_str();
    options.threads = arguments.threads;
    options.log = print_log;
    derain_model *model = nullptr;
    check(derain_open(arguments.words[1].c_str(), &options, &model));
    return {model, derain_close};
}

derain_info info_of(const ModelHandle &model) {
    derain_info info;
    derain_info_init(&info);
    check(derain_get_info(model.get(), &info));
    return info;
}

// While one frame is derained by the library's own thread, the next one is read and the one before it written.
void run(const Arguments &arguments) {
    const std::unique_ptr<Source> source = open_source(arguments.words[2]);
    const std::unique_ptr<Sink> sink = open_sink(arguments.words[3], source->form());
    Picture rainy[2] = {source->picture(), source->picture()}, clean[2] = {source->picture(), source->picture()};
    const ModelHandle model = open_model(arguments);  // after the pictures: it is closed before they go
    int submitted = 0, collected = 0;
    const auto collect = [&] {
        check(derain_collect(model.get(), -1, nullptr));
        sink->write(clean[collected++ % 2]);
    };
    while (source->read(rainy[submitted % 2])) {
        derain_request request;
        derain_request_default(&request);
        request.rainy = &rainy[submitted % 2].frame;
        request.clean = &clean[submitted % 2].frame;
        request.strength = arguments.strength;
        request.overlay = arguments.overlay;
        check(derain_submit(model.get(), &request));
        ++submitted;
        if (submitted - collected == 2) collect();
    }
    while (collected < submitted) collect();
    sink->finish();
}

double quantile(std::vector<double> sorted, double fraction) {
    std::sort(sorted.begin(), sorted.end());
    return sorted[static_cast<size_t>(fraction * static_cast<double>(sorted.size() - 1))];
}

void bench(const Arguments &arguments) {
    const ModelHandle model = open_model(arguments);
    Picture rainy = make_picture(arguments.format, arguments.width, arguments.height, DERAIN_COLOUR_BT709_LIMITED);
    Picture clean = make_picture(arguments.format, arguments.width, arguments.height, DERAIN_COLOUR_BT709_LIMITED);
    for (size_t i = 0; i < rainy.bytes.size(); ++i) rainy.bytes[i] = static_cast<uint8_t>(i * 2654435761U >> 24);
    for (int i = 0; i < std::min(10, arguments.frames); ++i) check(derain_run(model.get(), &rainy.frame, &clean.frame));
    const auto network_seconds = [&] {
        derain_statistics statistics;
        derain_statistics_init(&statistics);
        check(derain_get_statistics(model.get(), &statistics));
        return statistics.inference_seconds;
    };
    std::vector<double> whole, inference, shares;
    for (int i = 0; i < arguments.frames; ++i) {
        const double before = network_seconds();
        const auto start = std::chrono::steady_clock::now();
        check(derain_run(model.get(), &rainy.frame, &clean.frame));
        whole.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
        inference.push_back(1000 * (network_seconds() - before));
        shares.push_back(100 * (whole.back() / inference.back() - 1));
    }
    const double total = std::accumulate(whole.begin(), whole.end(), 0.0) / 1000;
    const derain_info info = info_of(model);
    std::printf("%s on %s, %d threads, %d x %d, %d frames\n", info.name, info.device, info.threads, arguments.width,
                arguments.height, arguments.frames);
    std::printf("frame in to frame out: median %.2f ms, p99 %.2f ms, %.1f frames/s\n", quantile(whole, 0.5),
                quantile(whole, 0.99), arguments.frames / total);
    std::printf("of which inference:    median %.2f ms; the rest adds %.2f %% to it (median over the frames)\n",
                quantile(inference, 0.5), quantile(shares, 0.5));
}

void print_info(const Arguments &arguments) {
    const ModelHandle model = open_model(arguments);
    const derain_info info = info_of(model);
    std::printf("model      %s (%s), %s\nbackend    %s: %s, %d threads\nsmallest   %d x %d\n", info.name, info.system,
                info.precision, info.backend, info.device, info.threads, info.minimum, info.minimum);
    if (info.fixed_width != 0) std::printf("only       %d wide\n", info.fixed_width);
    if (info.fixed_height != 0) std::printf("only       %d high\n", info.fixed_height);
    std::printf("libderain  %s\n", derain_version());
}

void print_version() {
    std::string engines;
    for (size_t i = 0; const char *name = derain_backend_name(i); ++i)
        engines += std::string(i == 0 ? "" : ", ") + name;
    std::printf("libderain %s\nengines: %s\n", derain_version(), engines.empty() ? "none" : engines.c_str());
}

}  // namespace

int main(int count, char **values) {
    try {
        const Arguments arguments = parse(count, values);
        const std::string command = arguments.words.empty() ? "" : arguments.words[0];
        if (arguments.help) {
            std::fputs(kUsage, stdout);
        } else if (command == "version") {
            print_version();
        } else if (command == "run" && arguments.words.size() == 4) {
            run(arguments);
        } else if (command == "bench" && arguments.words.size() == 2) {
            bench(arguments);
        } else if (command == "info" && arguments.words.size() == 2) {
            print_info(arguments);
        } else {
            std::fputs(kUsage, stderr);
            return 2;
        }
        return 0;
    } catch (const UsageError &error) {
        std::fprintf(stderr, "derain-native: %s\n", error.what());
        return 2;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "derain-native: %s\n", error.what());
        return 1;
    }
}
