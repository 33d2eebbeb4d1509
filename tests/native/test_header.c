/* derain.h in plain C: it compiles, and every function answers misuse with a status and a text. */
#include <derain.h>
#include <stdio.h>
#include <string.h>

#define CHECK(condition)                                                      \
    do {                                                                      \
        if (!(condition)) {                                                   \
            fprintf(stderr, "line %d: not true: %s\n", __LINE__, #condition); \
            return 1;                                                         \
        }                                                                     \
    } while (0)

int main(void) {
    derain_model *model = (derain_model *)&model;
    derain_options options;
    derain_request request;
    derain_frame frame;
    derain_info info;
    derain_statistics statistics;
    void *user_data = &frame;

    CHECK(strlen(derain_version()) >= 5);
    CHECK(strcmp(derain_last_error(), "") == 0);
    CHECK(strcmp(derain_status_name(DERAIN_BAD_FRAME), "DERAIN_BAD_FRAME") == 0);
    CHECK(strcmp(derain_status_name((derain_status)77), "unknown") == 0);
    CHECK(derain_backend_name(1000) == NULL);

    derain_options_init(&options);
    derain_request_init(&request);
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
    CHECK(strstr(derain_last_error(), "derain_options_init") != NULL);

    CHECK(derain_run(NULL, &frame, &frame) == DERAIN_BAD_ARGUMENT);
    CHECK(derain_run_request(NULL, &request) == DERAIN_BAD_ARGUMENT);
    CHECK(derain_submit(NULL, &request) == DERAIN_BAD_ARGUMENT);
    CHECK(derain_collect(NULL, 0, &user_data) == DERAIN_BAD_ARGUMENT);
    CHECK(user_data == NULL);
    CHECK(derain_get_info(NULL, &info) == DERAIN_BAD_ARGUMENT);
    CHECK(derain_get_statistics(NULL, &statistics) == DERAIN_BAD_ARGUMENT);
    CHECK(strstr(derain_last_error(), "model is NULL") != NULL);
    derain_close(NULL);
    return 0;
}
