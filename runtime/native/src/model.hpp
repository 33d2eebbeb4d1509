// An open model: frames through a backend's lanes, at once or by a queue.
#pragma once

#include "slot.hpp"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

namespace derain {

class Model {
  public:
    // Throws Error.
    Model(const std::string &path, const derain_options &options);
    ~Model();
    Model(const Model &) = delete;
    Model &operator=(const Model &) = delete;

    const Card &card() const { return card_; }
    derain_info info() const;
    derain_statistics statistics() const;

    void run(const derain_request &request);
    void submit(const derain_request &request);
    // The oldest submitted frame's status; its error text goes to `message`.
    derain_status collect(int32_t timeout_ms, void **user_data, std::string &message);

  private:
    struct Ticket;
    class Borrowed;

    // `clean` is nullptr where only the rain map is asked for.
    void require_size(const Frame &rainy, const Frame *clean) const;
    void require_outputs(const derain_request &request) const;
    void work();

    std::function<void(derain_log_level, const std::string &)> log_;
    Card card_;
    const BackendKind &kind_;
    int threads_, slots_limit_;
    std::unique_ptr<Backend> backend_;
    std::string device_;

    // Lanes with their buffers; `free_` holds those that nobody uses.
    std::vector<std::unique_ptr<Slot>> all_;
    std::vector<Slot *> free_;
    std::mutex free_mutex_;
    std::condition_variable freed_;

    // Submitted and not yet collected, oldest first; workers take the first one that has not begun.
    std::deque<std::shared_ptr<Ticket>> queue_;
    std::vector<std::thread> workers_;
    bool closing_ = false;
    std::mutex queue_mutex_;
    std::condition_variable queued_, done_;

    mutable std::mutex statistics_mutex_;
    derain_statistics statistics_{};
};

}  // namespace derain
