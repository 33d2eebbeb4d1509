// The element's rain gate: the intensity of a map, as derain.runtime.gate computes it, and which frames are looked at.
#include "check.hpp"
#include "rain_gate.hpp"

#include <cmath>

namespace {

void intensity_is_that_of_the_median_cell() {
    constexpr size_t width = 61, height = 47;  // cells of different sizes
    std::vector<float> map(width * height, 0.0F);
    CHECK_EQUAL(rain_intensity(map, width, height, 0.006), 0.0F);
    for (float &value : map) value = 0.006F;
    CHECK(std::abs(rain_intensity(map, width, height, 0.006) - 0.5F) < 1e-4F);
    CHECK(std::abs(rain_intensity(map, width, height, 0.012) - 1.0F / 3) < 1e-4F);
    for (float &value : map) value = 1;
    CHECK(rain_intensity(map, width, height, 0.006) > 0.99F);
    // A third of the picture that looks like rain is no rain.
    for (size_t i = 0; i < map.size(); ++i) map[i] = i % width < width / 3 ? 1.0F : 0.0F;
    CHECK_EQUAL(rain_intensity(map, width, height, 0.006), 0.0F);
    CHECK(std::abs(rain_intensity({0.003F, 0.009F}, 2, 1, 0.006) - 0.5F) < 1e-4F);
}

void looks_at_every_nth_dry_frame() {
    RainGate gate;
    gate.set_threshold(0.25F);
    gate.set_interval(3);
    CHECK(!gate.raining() && !gate.skip());
    CHECK(!gate.is_dry(0.25F));
    CHECK(gate.raining() && !gate.skip());
    CHECK(gate.is_dry(0.2F));
    CHECK(!gate.raining());
    CHECK(gate.skip() && gate.skip() && !gate.skip());
    CHECK(gate.is_dry(0));
    gate.reset();
    CHECK(!gate.skip());
}

}  // namespace

int main() {
    intensity_is_that_of_the_median_cell();
    looks_at_every_nth_dry_frame();
}
