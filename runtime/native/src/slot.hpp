// One frame through a backend's lane: from the caller's memory into the tensors and back.
#pragma once

#include "backend.hpp"
#include "frame.hpp"

#include <memory>
#include <vector>

namespace derain {

// A lane and the tensors it needs where a frame is not in the form of the port. They grow to the largest size used.
class Slot {
  public:
    Slot(const Card &card, std::unique_ptr<Lane> lane) : card_(card), lane_(std::move(lane)) {}

    // Fill the request's results; frames and sizes were checked. `clean` is nullptr where only the rain map is asked
    // for. Returns the seconds spent in the network. Throws Error.
    double derain(const derain_request &request, const Frame &rainy, const Frame *clean);

  private:
    const Card &card_;
    std::unique_ptr<Lane> lane_;
    std::vector<uint8_t> inputs_[2], clean_, map_, scratch_;
};

}  // namespace derain
