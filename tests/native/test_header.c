/* derain.h in plain C: it compiles, and every function answers misuse with a status and a text. */
#include <derain.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define CHECK(condition)                                                      \
    do {                                                                      \
        if (!(condition)) {                                                   \
            fprintf(stderr, "line %d: not true: %s\n", __LINE__, #condition); \
            return 1;                                                         \
        }                                                                     \
    } while (0)

/* Where the last field of each structure was in version 0.1: fields are only ever appended. */
static int keeps_its_layout(void) {
    CHECK(sizeof(void *) != 8 || offsetof(derain_options, log_user_data) == 40);
    CHECK(sizeof(void *) != 8 || offsetof(derain_info, fixed_height) == 68);
    CHECK(sizeof(void *) != 8 || offsetof(derain_info, rain_half) == 72);
    CHECK(sizeof(void *) != 8 || offsetof(derain_frame, timestamp) == 72);
    CHECK(sizeof(void *) != 8 || offsetof(derain_request, user_data) == 48);
    CHECK(sizeof(void *) != 8 || offsetof(derain_statistics, inference_seconds) == 24);
    CHECK(DERAIN_INTERNAL == 9 && DERAIN_FORMAT_RGB_PLANAR_F32 == 6 && DERAIN_COLOUR_BT709_FULL == 3);
    return 0;
}

/* A program built with a later header gives a larger structure; what is behind ours does not matter. */
static int takes_structures_of_later_versions(void) {
    struct {
        derain_options options;
        char appended[64];
    } later;
    derain_model *model = NULL;
    memset(&later, 0xA5, sizeof(later));
    derain_options_default(&later.options);
    later.options.struct_size = sizeof(later);
    CHECK(derain_open("no such file.onnx", &later.options, &model) == DERAIN_BAD_MODEL);
    later.options.struct_size = 1 << 20;
    CHECK(derain_open("no such file.onnx", &later.options, &model) == DERAIN_BAD_ARGUMENT);
    return 0;
}

int main(void) {
    int major = 0, minor = 0, patch = 0;
    derain_model *model = (derain_model *)&model;
    derain_options options;
    derain_request request;
    derain_frame frame;
    derain_info info;
    derain_statistics statistics;
    void *user_data = &frame;

    CHECK(sscanf(derain_version(), "%d.%d.%d", &major, &minor, &patch) == 3);
    CHECK(derain_version_number() == 10000 * major + 100 * minor + patch);
    CHECK(strcmp(derain_last_error(), "") == 0);
    CHECK(strcmp(derain_status_name(DERAIN_BAD_FRAME), "DERAIN_BAD_FRAME") == 0);
    CHECK(strcmp(derain_status_name((derain_status)77), "unknown") == 0);
    CHECK(derain_backend_name(1000) == NULL);

    derain_options_default(&options);
    derain_request_default(&request);
    derain_frame_init(&frame, DERAIN_FORMAT_BGR, 4, 4);
    derain_info_init(&info);
    derain_statistics_init(&statistics);
    CHECK(options.struct_size == sizeof(options) && options.backend == NULL);
    CHECK(request.strength == 1.0f && request.overlay == 0.0f);
    CHECK(frame.width == 4 && frame.format == DERAIN_FORMAT_BGR && frame.stride[0] == 0);

    CHECK(derain_open("no such file.onnx", NULL, &model) == DERAIN_BAD_MODEL);
    CHECK(model == NULL);
    CHECK(strstr(derain_last_error(), "no such file.onnx") != NULL);
    CHECK(derain_open(NULL, NULL, &model) == DERAIN_BAD_ARGUMENT);
    CHECK(derain_open("x.onnx", NULL, NULL) == DERAIN_BAD_ARGUMENT);
    options.struct_size = 0;
    CHECK(derain_open("x.onnx", &options, &model) == DERAIN_BAD_ARGUMENT);
    CHECK(strstr(derain_last_error(), "derain_options_default") != NULL);

    CHECK(derain_run(NULL, &frame, &frame) == DERAIN_BAD_ARGUMENT);
    CHECK(derain_run_request(NULL, &request) == DERAIN_BAD_ARGUMENT);
    CHECK(derain_submit(NULL, &request) == DERAIN_BAD_ARGUMENT);
    CHECK(derain_collect(NULL, 0, &user_data) == DERAIN_BAD_ARGUMENT);
    CHECK(user_data == NULL);
    CHECK(derain_get_info(NULL, &info) == DERAIN_BAD_ARGUMENT);
    CHECK(derain_get_statistics(NULL, &statistics) == DERAIN_BAD_ARGUMENT);
    CHECK(strstr(derain_last_error(), "model is NULL") != NULL);
    derain_close(NULL);
    return keeps_its_layout() || takes_structures_of_later_versions();
}
