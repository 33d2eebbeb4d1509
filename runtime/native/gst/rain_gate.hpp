// Whether frames need deraining at all: in dry weather the network is run on some frames only.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

// How hard it rains, from a rain map: 0 dry, 0.5 an ordinary shower, towards 1 a downpour (derain.rain_intensity). Rain
// falls everywhere, while what only looks like rain is somewhere: hence the median over a grid of cells. `half` is the
// median cell's mean at which the intensity is one half: derain_info.rain_half.
inline float rain_intensity(const std::vector<float> &rain, size_t width, size_t height, double half) {
    constexpr size_t cells = 6;
    const size_t rows = std::min(cells, height), columns = std::min(cells, width);
    std::vector<double> means;
    for (size_t r = 0; r < rows; ++r) {
        for (size_t c = 0; c < columns; ++c) {
            const size_t top = r * height / rows, bottom = (r + 1) * height / rows;
            const size_t left = c * width / columns, right = (c + 1) * width / columns;
            double sum = 0;
            for (size_t y = top; y < bottom; ++y) {
                for (size_t x = left; x < right; ++x) sum += static_cast<double>(rain[y * width + x]);
            }
            means.push_back(sum / static_cast<double>((bottom - top) * (right - left)));
        }
    }
    std::sort(means.begin(), means.end());
    const double signal = (means[(means.size() - 1) / 2] + means[means.size() / 2]) / 2;
    return signal > 0 ? static_cast<float>(signal / (signal + half)) : 0;
}

class RainGate {
  public:
    float threshold() const { return threshold_; }
    unsigned interval() const { return interval_; }
    void set_threshold(float intensity) { threshold_ = intensity; }
    void set_interval(unsigned frames) { interval_ = frames; }

    // Whether it rained at the last look; until the first one it is not known, and counts as no.
    bool raining() const { return raining_; }

    // Look at the next frame again.
    void reset() {
        skips_left_ = 0;
        raining_ = false;
    }

    // Whether the next frame passes without being looked at.
    bool skip() {
        if (skips_left_ == 0) return false;
        --skips_left_;
        return true;
    }

    // Whether a frame of that intensity counts as dry; the frames to be skipped are counted from here.
    bool is_dry(float intensity) {
        raining_ = intensity >= threshold_;
        skips_left_ = raining_ ? 0 : interval_ - 1;
        return !raining_;
    }

  private:
    float threshold_ = 0;
    unsigned interval_ = 15, skips_left_ = 0;
    bool raining_ = false;
};
