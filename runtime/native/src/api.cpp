// The functions of derain.h.
#include "guard.hpp"
#include "model.hpp"
#include "structs.hpp"

#include <memory>

struct derain_model {
    derain::Model model;
};

namespace {

thread_local std::string last_error;

template <typename Action>
derain_status guarded(Action action) noexcept {
    std::string message;
    const derain_status status = derain::to_status(action, message);
    if (status != DERAIN_OK) last_error.swap(message);
    return status;
}

void require_model(const derain_model *model) {
    if (model == nullptr) {
        throw derain::Error(DERAIN_BAD_ARGUMENT, "The model is NULL", "one that derain_open returned");
    }
}

derain_request initial_request() {
    derain_request request{};
    request.struct_size = sizeof(request);
    request.strength = 1;
    return request;
}

template <typename T>
void init(T *given) {
    if (given == nullptr) return;
    *given = T{};
    given->struct_size = sizeof(T);
}

}  // namespace

const char *derain_last_error(void) {
    return last_error.c_str();
}

const char *derain_status_name(derain_status status) {
    switch (static_cast<int>(status)) {
        case DERAIN_OK: return "DERAIN_OK";
        case DERAIN_BAD_ARGUMENT: return "DERAIN_BAD_ARGUMENT";
        case DERAIN_BAD_MODEL: return "DERAIN_BAD_MODEL";
        case DERAIN_BAD_FRAME: return "DERAIN_BAD_FRAME";
        case DERAIN_BACKEND: return "DERAIN_BACKEND";
        case DERAIN_NO_MEMORY: return "DERAIN_NO_MEMORY";
        case DERAIN_FULL: return "DERAIN_FULL";
        case DERAIN_EMPTY: return "DERAIN_EMPTY";
        case DERAIN_TIMEOUT: return "DERAIN_TIMEOUT";
        case DERAIN_INTERNAL: return "DERAIN_INTERNAL";
        default: return "unknown";
    }
}

const char *derain_version(void) {
    return DERAIN_VERSION;
}

int32_t derain_version_number(void) {
    return DERAIN_VERSION_NUMBER;
}

const char *derain_backend_name(size_t index) {
    const char *name = nullptr;
    guarded([&] {
        const auto &kinds = derain::backend_kinds();
        if (index < kinds.size()) name = kinds[index].name;
    });
    return name;
}

void derain_options_default(derain_options *options) {
    init(options);
}
void derain_info_init(derain_info *info) {
    init(info);
}
void derain_statistics_init(derain_statistics *statistics) {
    init(statistics);
}

void derain_request_default(derain_request *request) {
    if (request != nullptr) *request = initial_request();
}

void derain_frame_init(derain_frame *frame, derain_format format, int32_t width, int32_t height) {
    init(frame);
    if (frame == nullptr) return;
    frame->format = static_cast<int32_t>(format);
    frame->width = width;
    frame->height = height;
}

derain_status derain_open(const char *path, const derain_options *options, derain_model **model) {
    if (model != nullptr) *model = nullptr;
    return guarded([&] {
        if (path == nullptr || model == nullptr) {
            throw derain::Error(DERAIN_BAD_ARGUMENT, "path or model is NULL",
                                "a file name, and where to put the model");
        }
        derain_options usual{};
        derain_options_default(&usual);
        const derain_options chosen =
            options == nullptr ? usual : derain::take_struct(options, usual, "derain_options");
        *model = new derain_model{{path, chosen}};
    });
}

void derain_close(derain_model *model) {
    guarded([&] { delete model; });
}

derain_status derain_get_info(const derain_model *model, derain_info *info) {
    return guarded([&] {
        require_model(model);
        derain::give_struct(info, model->model.info(), "derain_info");
    });
}

derain_status derain_run_request(derain_model *model, const derain_request *request) {
    return guarded([&] {
        require_model(model);
        model->model.run(derain::take_struct(request, initial_request(), "derain_request"));
    });
}

derain_status derain_run(derain_model *model, const derain_frame *rainy, derain_frame *clean) {
    derain_request request = initial_request();
    request.rainy = rainy;
    request.clean = clean;
    return derain_run_request(model, &request);
}

derain_status derain_submit(derain_model *model, const derain_request *request) {
    return guarded([&] {
        require_model(model);
        model->model.submit(derain::take_struct(request, initial_request(), "derain_request"));
    });
}

derain_status derain_collect(derain_model *model, int32_t timeout_ms, void **user_data) {
    if (user_data != nullptr) *user_data = nullptr;
    derain_status frame_status = DERAIN_OK;
    std::string message;
    const derain_status status = guarded([&] {
        require_model(model);
        frame_status = model->model.collect(timeout_ms, user_data, message);
    });
    if (status != DERAIN_OK) return status;
    if (frame_status != DERAIN_OK) last_error.swap(message);
    return frame_status;
}

derain_status derain_get_statistics(derain_model *model, derain_statistics *statistics) {
    return guarded([&] {
        require_model(model);
        derain::give_struct(statistics, model->model.statistics(), "derain_statistics");
    });
}
