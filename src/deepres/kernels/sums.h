// Sums of values and of their squares, a channel each, in double and free of cancellation.
#pragma once
#include <vector>

#include "simd.h"

// Each group of values is handed in less its first value, as float sums over a few thousand values at most.
struct Sums {
    std::vector<double> sum, square;
    explicit Sums(int64_t channels) : sum(channels, 0.0), square(channels, 0.0) {}
    void add(int64_t channel, vec shift, vec sums, vec squares, int64_t count) {
        for (int i = 0; i < LANES; i++) {
            const double h = shift[i], s = sums[i];
            sum[channel + i] += s + count * h;
            square[channel + i] += squares[i] + 2 * h * s + count * h * h;
        }
    }
};
