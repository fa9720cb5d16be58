// The gradient of a convolution's output through batch normalization, addition and ReLU, row by row.
#pragma once
#include "simd.h"

template <bool RELU, typename T>
inline vec masked(const T* dy, const T* y, int64_t place) {
    const vec value = load(dy + place);
    return RELU ? (load(y + place) <= zero() ? zero() : value) : value;  // where y is NaN as PyTorch
}

// d = by_dy * dy' + by_x * x + constant, where dy' is dy but 0 where y <= 0 (dy everywhere where y is null); x is what was
// normalised. dy' is also the gradient of what was added, written to `dadded` (or null). All are rows x channels.
template <typename T>
struct Slope {
    const T *dy, *y, *x;
    T* dadded;
    const float *by_dy, *by_x, *constant;

    // `count` rows from row `first` on, to d
    template <typename D>
    void rows(int64_t first, int64_t count, int64_t channels, D* d) const {
        auto run = dadded ? (y ? &Slope::some<true, true, D> : &Slope::some<false, true, D>)
                          : (y ? &Slope::some<true, false, D> : &Slope::some<false, false, D>);
        (this->*run)(first, count, channels, d);
    }

  private:
    template <bool RELU, bool ADD, typename D>
    void some(int64_t first, int64_t count, int64_t channels, D* d) const {
        for (int64_t c = 0; c < channels; c += LANES) {
            const vec a = load(by_dy + c), b = load(by_x + c), k = load(constant + c);
            for (int64_t r = 0; r < count; r++) {
                const int64_t place = (first + r) * channels + c;
                const vec value = masked<RELU>(dy, y, place);
                if (ADD) store(dadded + place, value);
                store(d + r * channels + c, a * value + b * load(x + place) + k);
            }
        }
    }
};
