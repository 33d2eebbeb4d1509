#include "model.hpp"

#include "clock.hpp"
#include "engine_file.hpp"
#include "error.hpp"
#include "guard.hpp"
#include "structs.hpp"
#include "threads.hpp"

#include <algorithm>
#include <optional>

namespace derain {
namespace {

constexpr int32_t kMaxThreads = 1024, kMaxSlots = 16, kUsualSlots = 2;

int in_range(int32_t value, int32_t usual, int32_t most, const char *name) {
    if (value >= 0 && value <= most) return value == 0 ? usual : value;
    throw Error(DERAIN_BAD_ARGUMENT, std::string("derain_options.") + name + " is " + std::to_string(value),
                "0 to " + std::to_string(most));
}

std::function<void(derain_log_level, const std::string &)> logger(const derain_options &options) {
    if (options.log == nullptr) return [](derain_log_level, const std::string &) {};
    const auto mutex = std::make_shared<std::mutex>();
    return [log = options.log, user_data = options.log_user_data, mutex](derain_log_level level, std::string text) {
        std::replace(text.begin(), text.end(), '\n', ' ');  // of an engine: derain.h promises one line
        const std::lock_guard lock(*mutex);
        log(level, text.c_str(), user_data);
    };
}

// What to open a file with; empty: the best one.
std::string backend_name(const std::string &path, const char *given) {
    const std::string name = given == nullptr ? "" : given;
    if (!is_engine(path)) return name;
    if (name.empty() || name == "tensorrt") return "tensorrt";
    throw Error(DERAIN_BAD_ARGUMENT, "'" + path + "' is a TensorRT engine, and the backend '" + name + "' is asked for",
                "", "Give the .onnx file, which every backend runs");
}

}  // namespace

struct Model::Ticket {
    derain_request request;
    derain_frame rainy_frame, clean_frame;
    bool begun = false, done = false;
    derain_status status = DERAIN_OK;
    std::string message;
};

// A slot taken from the free ones, waiting for it if need be, and given back at the end of the block.
class Model::Borrowed {
  public:
    explicit Borrowed(Model &model) : model_(model) {
        std::unique_lock lock(model_.free_mutex_);
        model_.freed_.wait(lock, [this] { return !model_.free_.empty(); });
        slot_ = model_.free_.back();
        model_.free_.pop_back();
    }
    ~Borrowed() {
        {
            const std::lock_guard lock(model_.free_mutex_);
            model_.free_.push_back(slot_);
        }
        model_.freed_.notify_one();
    }
    Borrowed(const Borrowed &) = delete;
    Borrowed &operator=(const Borrowed &) = delete;

    Slot *operator->() const { return slot_; }

  private:
    Model &model_;
    Slot *slot_;
};

Model::Model(const std::string &path, const derain_options &options)
    : log_(logger(options)),
      card_(read_model_card(path)),
      kind_(choose_backend(backend_name(path, options.backend), card_)),
      threads_(in_range(options.threads, default_threads(), kMaxThreads, "threads")),
      slots_limit_(in_range(options.slots, kUsualSlots, kMaxSlots, "slots")) {
    const std::string engine = options.engine == nullptr ? "" : options.engine;
    backend_ = kind_.open(card_, {path, engine, threads_, slots_limit_, log_});
    device_ = backend_->device();
    for (auto &lane : backend_->lanes()) {
        all_.push_back(std::make_unique<Slot>(card_, std::move(lane)));
        free_.push_back(all_.back().get());
    }
    log_(DERAIN_LOG_INFO, "Opened '" + path + "' (" + card_.name + ", " + card_.precision + ") with " + device_ + ", " +
                              std::to_string(threads_) + " threads");
}

Model::~Model() {
    {
        const std::lock_guard lock(queue_mutex_);
        closing_ = true;
    }
    queued_.notify_all();
    for (std::thread &worker : workers_) worker.join();
}

derain_info Model::info() const {
    return {sizeof(derain_info), card_.name.c_str(), card_.system.c_str(), card_.precision.c_str(),
            kind_.name,          device_.c_str(),    card_.json.c_str(),   threads_,
            card_.minimum,       card_.fixed_width,  card_.fixed_height,   card_.rain_half};
}

derain_statistics Model::statistics() const {
    const std::lock_guard lock(statistics_mutex_);
    return statistics_;
}

void Model::require_size(const Frame &rainy, const Frame *clean) const {
    const auto size = [](int width, int height) { return std::to_string(width) + " x " + std::to_string(height); };
    const int width = rainy.width(), height = rainy.height();
    const std::string found = "The frame has " + size(width, height) + " pixels";
    if (clean != nullptr && (clean->width() != width || clean->height() != height)) {
        throw Error(DERAIN_BAD_FRAME, "The clean frame has " + size(clean->width(), clean->height()) + " pixels",
                    size(width, height) + ", as the rainy one");
    }
    if (std::min(width, height) < card_.minimum) {
        throw Error(DERAIN_BAD_FRAME, found, "at least " + size(card_.minimum, card_.minimum) + " for this model");
    }
    if ((card_.fixed_width != 0 && card_.fixed_width != width) ||
        (card_.fixed_height != 0 && card_.fixed_height != height)) {
        throw Error(DERAIN_BAD_FRAME, found,
                    size(card_.fixed_width != 0 ? card_.fixed_width : width,
                         card_.fixed_height != 0 ? card_.fixed_height : height) +
                        ", for which this model was exported",
                    "Resize the frame, or export a dynamic model with: derain export");
    }
    if (card_.takes_nv12() && (width % 2 != 0 || height % 2 != 0)) {
        throw Error(DERAIN_BAD_FRAME, found, "an even width and height for this model, which takes NV12",
                    "Crop the frame by a pixel, or export the model with --frames bgr");
    }
}

void Model::require_outputs(const derain_request &request) const {
    if (request.clean != nullptr && !card_.gives_pictures()) {
        throw Error(DERAIN_BAD_ARGUMENT, "A clean frame is asked of '" + card_.name + "', which gives rain maps only",
                    "clean to be NULL for the attention part of a model");
    }
    if (request.clean == nullptr && request.rain == nullptr) {
        throw Error(DERAIN_BAD_ARGUMENT, "The request asks for no result: clean and rain are NULL", "one of them");
    }
}

void Model::run(const derain_request &request) {
    require_outputs(request);
    const Frame rainy(request.rainy, "rainy");
    const auto clean = request.clean == nullptr ? std::nullopt : std::optional<Frame>({request.clean, "clean"});
    require_size(rainy, clean ? &*clean : nullptr);
    const size_t row_bytes = static_cast<size_t>(rainy.width()) * sizeof(float);
    if (request.rain != nullptr && request.rain_stride != 0 &&
        (request.rain_stride < row_bytes || request.rain_stride > size_t{1} << 31 ||
         request.rain_stride % sizeof(float) != 0)) {
        throw Error(DERAIN_BAD_FRAME, "rain_stride is " + std::to_string(request.rain_stride),
                    "a multiple of 4, " + std::to_string(row_bytes) + " or more for " + std::to_string(rainy.width()) +
                        " pixels");
    }
    {
        const Borrowed slot(*this);
        const auto start = Clock::now();
        const double inference = slot->derain(request, rainy, clean ? &*clean : nullptr);
        const std::lock_guard lock(statistics_mutex_);
        ++statistics_.frames;
        statistics_.seconds += seconds_since(start);
        statistics_.inference_seconds += inference;
    }
    if (request.clean != nullptr) request.clean->timestamp = rainy.timestamp();
}

void Model::submit(const derain_request &request) {
    require_outputs(request);
    const Frame rainy(request.rainy, "rainy");
    const auto clean = request.clean == nullptr ? std::nullopt : std::optional<Frame>({request.clean, "clean"});
    require_size(rainy, clean ? &*clean : nullptr);
    auto ticket = std::make_shared<Ticket>();
    ticket->request = request;
    ticket->rainy_frame = take_struct(request.rainy, derain_frame{}, "derain_frame");
    ticket->request.rainy = &ticket->rainy_frame;
    if (clean) {
        ticket->clean_frame = take_struct(request.clean, derain_frame{}, "derain_frame");
        ticket->request.clean = &ticket->clean_frame;
    }
    {
        const std::lock_guard lock(queue_mutex_);
        if (queue_.size() >= static_cast<size_t>(slots_limit_)) {
            throw Error(DERAIN_FULL, "All " + std::to_string(slots_limit_) + " slots hold a frame", "",
                        "Call derain_collect first, or open the model with more slots");
        }
        while (workers_.size() < all_.size()) workers_.emplace_back([this] { work(); });
        queue_.push_back(std::move(ticket));
        if (clean) request.clean->timestamp = rainy.timestamp();
    }
    queued_.notify_one();
}

void Model::work() {
    std::unique_lock lock(queue_mutex_);
    while (true) {
        std::shared_ptr<Ticket> ticket;
        queued_.wait(lock, [&] {
            for (const auto &one : queue_) {
                if (!one->begun) {
                    ticket = one;
                    break;
                }
            }
            return closing_ || ticket;
        });
        if (closing_) return;
        ticket->begun = true;
        lock.unlock();
        ticket->status = to_status([&] { run(ticket->request); }, ticket->message);
        lock.lock();
        ticket->done = true;
        done_.notify_all();
    }
}

derain_status Model::collect(int32_t timeout_ms, void **user_data, std::string &message) {
    std::unique_lock lock(queue_mutex_);
    // Another thread may collect the last frame while this one waits.
    const auto ready = [&] { return queue_.empty() || queue_.front()->done; };
    if (timeout_ms < 0) {
        done_.wait(lock, ready);
    } else if (!done_.wait_for(lock, std::chrono::milliseconds(timeout_ms), ready)) {
        throw Error(DERAIN_TIMEOUT, "The oldest frame is not done after " + std::to_string(timeout_ms) + " ms", "",
                    "Call derain_collect again");
    }
    if (queue_.empty()) {
        throw Error(DERAIN_EMPTY, "No frame was submitted that is not collected yet", "", "Call derain_submit first");
    }
    const auto oldest = queue_.front();
    queue_.pop_front();
    if (queue_.empty()) done_.notify_all();
    if (user_data != nullptr) *user_data = oldest->request.user_data;
    message = oldest->message;
    return oldest->status;
}

}  // namespace derain
