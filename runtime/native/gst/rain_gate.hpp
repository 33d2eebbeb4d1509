// Whether frames need deraining at all: in dry weather the network is run on some frames only.
#pragma once

#include <cstddef>
#include <vector>

class RainGate {
  public:
    float threshold() const { return threshold_; }
    unsigned interval() const { return interval_; }
    void set_threshold(float mean_rain) { threshold_ = mean_rain; }
    void set_interval(unsigned frames) { interval_ = frames; }

    // Look at the next frame again.
    void reset() { skips_left_ = 0; }

    // Whether the next frame passes without being looked at.
    bool skip() {
        if (skips_left_ == 0) return false;
        --skips_left_;
        return true;
    }

    // Whether a frame with this rain map counts as dry; the frames to be skipped are counted from here.
    bool is_dry(const std::vector<float> &rain) {
        double sum = 0;
        for (const float value : rain) sum += static_cast<double>(value);
        const bool dry = rain.empty() || sum / static_cast<double>(rain.size()) < static_cast<double>(threshold_);
        skips_left_ = dry ? interval_ - 1 : 0;
        return dry;
    }

  private:
    float threshold_ = 0;
    unsigned interval_ = 15, skips_left_ = 0;
};
