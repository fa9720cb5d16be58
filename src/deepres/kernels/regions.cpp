// Regions of channels-last maps (images x height x width x channels), pooled to size x size positions by the maximum,
// as torchvision's roi_pool, and the gradient of the maps. Channels are a multiple of 16. Each thread has its part of
// the regions, or in the gradient of the channels, so that any number of threads gives the same bits.
#include <algorithm>
#include <cfloat>
#include <cmath>

#include "simd.h"

namespace {

typedef int32_t places __attribute__((vector_size(4 * LANES), aligned(4)));

struct Bins {  // of one region along one side of the map
    int64_t start, extent, length;
    float step;

    Bins(float low, float high, float scale, int64_t size, int64_t length) : length(length) {
        start = static_cast<int64_t>(std::round(low * scale));
        extent = std::max<int64_t>(static_cast<int64_t>(std::round(high * scale)) - start + 1, 1);
        step = static_cast<float>(extent) / static_cast<float>(size);
    }
    int64_t first(int64_t bin) const { return inside(start + static_cast<int64_t>(std::floor(bin * step))); }
    int64_t stop(int64_t bin) const { return inside(start + static_cast<int64_t>(std::ceil((bin + 1) * step))); }
    int64_t inside(int64_t place) const { return std::min(std::max<int64_t>(place, 0), length); }
};

template <typename T>
void pool(const T* maps, const float* regions, float scale, int64_t count, int64_t height, int64_t width,
          int64_t channels, int64_t size, T* result, int32_t* chosen) {
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t r = 0; r < count; r++) {
        const float* region = regions + 5 * r;
        const T* map = maps + static_cast<int64_t>(region[0]) * height * width * channels;
        const Bins across(region[1], region[3], scale, size, width), down(region[2], region[4], scale, size, height);
        for (int64_t bin = 0; bin < size * size; bin++) {
            const int64_t top = down.first(bin / size), bottom = down.stop(bin / size);
            const int64_t left = across.first(bin % size), right = across.stop(bin % size);
            const int64_t into = (r * size * size + bin) * channels;
            const bool empty = top >= bottom || left >= right;
            for (int64_t c = 0; c < channels; c += LANES) {
                vec best = zero() + (empty ? 0.0f : -FLT_MAX);
                places place = places{} - 1;
                for (int64_t y = top; y < bottom; y++)
                    for (int64_t x = left; x < right; x++) {
                        const int64_t position = y * width + x;
                        const vec value = load(map + position * channels + c);
                        const auto above = value > best;
                        best = above ? value : best;
                        place = above ? places{} + static_cast<int32_t>(position) : place;
                    }
                store(result + into + c, best);
                if (chosen) *reinterpret_cast<places*>(chosen + into + c) = place;
            }
        }
    }
}

template <typename T>
void differentiate(const T* dy, const int32_t* chosen, const float* regions, int64_t count, int64_t positions,
                   int64_t channels, int64_t bins, float* dmaps) {
#pragma omp parallel for schedule(static)
    for (int64_t part = 0; part < channels / LANES; part++) {
        for (int64_t r = 0; r < count; r++) {
            float* map = dmaps + static_cast<int64_t>(regions[5 * r]) * positions * channels;
            for (int64_t bin = 0; bin < bins; bin++) {
                const int64_t from = (r * bins + bin) * channels + part * LANES;
                const vec gradient = load(dy + from);
                for (int i = 0; i < LANES; i++)
                    if (chosen[from + i] >= 0) map[chosen[from + i] * channels + part * LANES + i] += gradient[i];
            }
        }
    }
}

}  // namespace

extern "C" void pool_regions(int narrow, const void* maps, const float* regions, double scale, int64_t count,
                             int64_t height, int64_t width, int64_t channels, int64_t size, void* result,
                             int32_t* chosen) {
    by_type(narrow, [=](auto kind) {
        typedef decltype(kind) T;
        pool(static_cast<const T*>(maps), regions, static_cast<float>(scale), count, height, width, channels, size,
             static_cast<T*>(result), chosen);
    });
}

extern "C" void differentiate_regions(int narrow, const void* dy, const int32_t* chosen, const float* regions,
                                      int64_t count, int64_t positions, int64_t channels, int64_t bins,
                                      float* dmaps) {
    by_type(narrow, [=](auto kind) {
        typedef decltype(kind) T;
        differentiate(static_cast<const T*>(dy), chosen, regions, count, positions, channels, bins, dmaps);
    });
}
