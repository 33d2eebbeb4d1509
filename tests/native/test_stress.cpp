// Many threads on one model: synchronous calls, the queue, changing sizes and formats, failing calls, opening and
// closing. Run by pytest with a model file; sanitizer builds find what it does wrong.
#include "check.hpp"

#include <derain.h>

#include <atomic>
#include <thread>
#include <vector>

namespace {

struct Picture {
    Picture(derain_format format, int width, int height) : bytes(size_t{4} * width * height + 64, 100) {
        derain_frame_init(&frame, format, width, height);
        const size_t luma = static_cast<size_t>(width) * static_cast<size_t>(height);
        frame.plane[0] = bytes.data();
        frame.plane[1] = bytes.data() + luma;
        frame.plane[2] =
            bytes.data() + luma + static_cast<size_t>((width + 1) / 2) * static_cast<size_t>((height + 1) / 2);
    }

    std::vector<uint8_t> bytes;
    derain_frame frame;
};

derain_format format_of(int index) {
    return static_cast<derain_format>(DERAIN_FORMAT_BGR + index % 5);
}

void call(derain_model *model, int seed) {
    for (int i = seed; i < seed + 30; ++i) {
        Picture rainy(format_of(i), 8 + i % 13, 6 + i % 7), clean(format_of(i + 1), 8 + i % 13, 6 + i % 7);
        CHECK_EQUAL(derain_run(model, &rainy.frame, &clean.frame), DERAIN_OK);
        rainy.frame.stride[0] = 1;
        CHECK_EQUAL(derain_run(model, &rainy.frame, &clean.frame), DERAIN_BAD_FRAME);
        CHECK(contains(derain_last_error(), "stride"));
        derain_statistics statistics;
        derain_statistics_init(&statistics);
        CHECK_EQUAL(derain_get_statistics(model, &statistics), DERAIN_OK);
        CHECK(statistics.frames > 0);
    }
}

// Threads that submit and others that collect, each frame once.
void queue(derain_model *model) {
    constexpr int frames = 60;
    std::vector<Picture> rainy, clean;
    for (int i = 0; i < frames; ++i) {
        rainy.emplace_back(format_of(i), 20, 10);
        clean.emplace_back(format_of(i), 20, 10);
        rainy.back().frame.plane[0] = rainy.back().bytes.data();
    }
    std::atomic<int> collected{0};
    std::vector<std::atomic<int>> seen(frames);
    std::thread submitter([&] {
        for (int i = 0; i < frames;) {
            derain_request request;
            derain_request_default(&request);
            request.rainy = &rainy[i].frame;
            request.clean = &clean[i].frame;
            request.user_data = &seen[i];
            const derain_status status = derain_submit(model, &request);
            CHECK(status == DERAIN_OK || status == DERAIN_FULL);
            if (status == DERAIN_OK) {
                ++i;
            } else {
                std::this_thread::yield();
            }
        }
    });
    const auto collect = [&] {
        while (collected < frames) {
            void *user_data = nullptr;
            const derain_status status = derain_collect(model, 5, &user_data);
            if (status == DERAIN_EMPTY || status == DERAIN_TIMEOUT) continue;
            CHECK_EQUAL(status, DERAIN_OK);
            ++*static_cast<std::atomic<int> *>(user_data);
            ++collected;
        }
    };
    std::thread first(collect), second(collect);
    submitter.join();
    first.join();
    second.join();
    for (const auto &count : seen) CHECK_EQUAL(count.load(), 1);
}

}  // namespace

int main(int count, char **arguments) {
    CHECK(count == 2);
    derain_model *model = nullptr;
    derain_options options;
    derain_options_default(&options);
    options.threads = 1;
    options.slots = 4;
    CHECK_EQUAL(derain_open(arguments[1], &options, &model), DERAIN_OK);
    std::vector<std::thread> threads;
    for (int seed = 0; seed < 3; ++seed) threads.emplace_back(call, model, 100 * seed);
    queue(model);
    for (std::thread &thread : threads) thread.join();
    derain_close(model);
    // Closing drops what was submitted and not begun.
    CHECK_EQUAL(derain_open(arguments[1], &options, &model), DERAIN_OK);
    Picture rainy(DERAIN_FORMAT_BGR, 64, 64), clean(DERAIN_FORMAT_BGR, 64, 64);
    derain_request request;
    derain_request_default(&request);
    request.rainy = &rainy.frame;
    request.clean = &clean.frame;
    for (int i = 0; i < 4; ++i) CHECK_EQUAL(derain_submit(model, &request), DERAIN_OK);
    derain_close(model);
}
