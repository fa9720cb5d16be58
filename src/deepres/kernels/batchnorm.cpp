// Batch normalization, addition and ReLU in one pass over channels-last maps (rows x channels), and their
// gradients in two. Channels are a multiple of 16. Sums are taken in blocks of rows in float, then in double; each
// thread has its part of the rows, so that the same number of threads gives the same bits.
#include <algorithm>
#include <cmath>
#include <vector>

#include <omp.h>

#include "simd.h"
#include "slope.h"
#include "sums.h"

namespace {

constexpr int64_t BLOCK = 256;  // rows

template <typename Work>
void over_blocks(int64_t rows, Work work) {  // work(thread, first row, rows)
#pragma omp parallel
    {
        const int me = omp_get_thread_num(), team = omp_get_num_threads();
        const int64_t blocks = (rows + BLOCK - 1) / BLOCK;
        for (int64_t b = blocks * me / team; b < blocks * (me + 1) / team; b++)
            work(me, b * BLOCK, std::min(BLOCK, rows - b * BLOCK));
    }
}

template <bool ADD, bool RELU, typename T>
void normalise(const T* x, const T* added, T* y, int64_t rows, int64_t channels, const float* scale,
               const float* shift) {
    over_blocks(rows, [=](int, int64_t first, int64_t count) {
        for (int64_t c = 0; c < channels; c += LANES) {
            const vec a = load(scale + c), b = load(shift + c);
            for (int64_t r = first; r < first + count; r++) {
                vec value = load(x + r * channels + c) * a + b;
                if (ADD) value += load(added + r * channels + c);
                if (RELU) value = value < zero() ? zero() : value;  // NaN stays, and is noticed
                store(y + r * channels + c, value);
            }
        }
    });
}

template <bool RELU, typename T>
void reduce(const T* dy, const T* y, const T* x, int64_t rows, int64_t channels, const float* mean,
            std::vector<std::vector<double>>& sums) {  // of each thread: sum of dy, then of dy (x - mean)
    over_blocks(rows, [&, channels](int me, int64_t first, int64_t count) {
        for (int64_t c = 0; c < channels; c += LANES) {
            vec total = zero(), product = zero();
            const vec centre = load(mean + c);
            for (int64_t r = first; r < first + count; r++) {
                const vec value = masked<RELU>(dy, y, r * channels + c);
                total += value;
                product += value * (load(x + r * channels + c) - centre);
            }
            for (int i = 0; i < LANES; i++) {
                sums[me][c + i] += total[i];
                sums[me][channels + c + i] += product[i];
            }
        }
    });
}

template <typename T>
void add_up(const T* x, int64_t rows, int64_t channels, double* sum, double* square) {
    std::vector<Sums> parts(omp_get_max_threads(), Sums(channels));
    over_blocks(rows, [&, channels](int me, int64_t first, int64_t count) {
        for (int64_t c = 0; c < channels; c += LANES) {
            const vec shift = load(x + first * channels + c);
            vec total = zero(), squares = zero();
            for (int64_t r = first; r < first + count; r++) {
                const vec value = load(x + r * channels + c) - shift;
                total += value;
                squares += value * value;
            }
            parts[me].add(c, shift, total, squares, count);
        }
    });
    for (int64_t c = 0; c < channels; c++) {
        sum[c] = square[c] = 0;
        for (const Sums& part : parts) sum[c] += part.sum[c], square[c] += part.square[c];
    }
}

}  // namespace

// Sums of x and of its squares over all rows, `channels` doubles each. Where `narrow`, maps are of bf16, here and below.
extern "C" void sum_rows(int narrow, const void* x, int64_t rows, int64_t channels, double* sum, double* square) {
    by_type(narrow, [&](auto kind) { add_up(static_cast<const decltype(kind)*>(x), rows, channels, sum, square); });
}

// From the sums over `rows`: mean and 1 / standard deviation, the scale and shift of y = scale * x + shift, and the
// running statistics moved by `momentum` (the variance without bias, as PyTorch's).
extern "C" void finish_statistics(const double* sum, const double* square, int64_t rows, int64_t channels,
                                  const float* weight, const float* bias, double eps, double momentum,
                                  float* running_mean, float* running_var, float* mean, float* inverse, float* scale,
                                  float* shift) {
    for (int64_t c = 0; c < channels; c++) {
        const double m = sum[c] / rows, v = std::max(square[c] / rows - m * m, 0.0), i = 1 / std::sqrt(v + eps);
        const double unbiased = rows > 1 ? v * rows / (rows - 1) : v;
        running_mean[c] += static_cast<float>(momentum * (m - running_mean[c]));
        running_var[c] += static_cast<float>(momentum * (unbiased - running_var[c]));
        mean[c] = static_cast<float>(m);
        inverse[c] = static_cast<float>(i);
        scale[c] = static_cast<float>(weight[c] * i);
        shift[c] = static_cast<float>(bias[c] - m * weight[c] * i);
    }
}

// y = scale * x + shift, + added (or null), then ReLU where asked.
extern "C" void normalise_add_relu(int narrow, const void* x, const void* added, void* y, int64_t rows, int64_t channels,
                                   const float* scale, const float* shift, int relu) {
    by_type(narrow, [&](auto kind) {
        using T = decltype(kind);
        auto run = added ? (relu ? normalise<true, true, T> : normalise<true, false, T>)
                         : (relu ? normalise<false, true, T> : normalise<false, false, T>);
        run(static_cast<const T*>(x), static_cast<const T*>(added), static_cast<T*>(y), rows, channels, scale, shift);
    });
}

// The gradients of normalise_add_relu of weight and bias, and what `Slope` needs for the others. y is the result where
// it went through a ReLU, else null.
extern "C" void differentiate_normalization(int narrow, const void* dy, const void* y, const void* x, int64_t rows,
                                            int64_t channels, const float* mean, const float* inverse,
                                            const float* weight, float* dweight, float* dbias, float* by_dy,
                                            float* by_x, float* constant) {
    std::vector<std::vector<double>> sums(omp_get_max_threads(), std::vector<double>(2 * channels, 0.0));
    by_type(narrow, [&](auto kind) {
        using T = decltype(kind);
        auto run = y ? reduce<true, T> : reduce<false, T>;
        run(static_cast<const T*>(dy), static_cast<const T*>(y), static_cast<const T*>(x), rows, channels, mean, sums);
    });
    for (int64_t c = 0; c < channels; c++) {
        double total = 0, product = 0;
        for (const auto& part : sums) total += part[c], product += part[channels + c];
        const double i = inverse[c], a = weight[c] * i, b = -a * i * i * product / rows;
        dweight[c] = static_cast<float>(product * i);
        dbias[c] = static_cast<float>(total);
        by_dy[c] = static_cast<float>(a);
        by_x[c] = static_cast<float>(b);
        constant[c] = static_cast<float>(-a * total / rows - b * mean[c]);
    }
}

// dx = the gradient of what was normalised, and of what was added (or null).
extern "C" void differentiate_add_relu(int narrow, const void* dy, const void* y, const void* x, void* dx, void* dadded,
                                       int64_t rows, int64_t channels, const float* by_dy, const float* by_x,
                                       const float* constant) {
    by_type(narrow, [&](auto kind) {
        using T = decltype(kind);
        const Slope<T> slope{static_cast<const T*>(dy), static_cast<const T*>(y), static_cast<const T*>(x),
                             static_cast<T*>(dadded), by_dy, by_x, constant};
        over_blocks(rows, [=](int, int64_t first, int64_t count) {
            slope.rows(first, count, channels, static_cast<T*>(dx) + first * channels);
        });
    });
}
