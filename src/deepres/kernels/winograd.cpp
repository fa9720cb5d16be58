// 3x3 convolutions of stride 1 and padding 1 on channels-last maps, by Winograd's F(4x4, 3x3):
// Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015).
//
// A tile of 4x4 outputs needs 6x6 inputs d. With the kernel g,  output = A^T [ (G g G^T) . (B^T d B) ] A:
// 36 products of matrices (tiles x channels in) (channels in x channels out) instead of 144.
// The gradient of the input is a convolution with the rotated kernel; that of the kernel is the adjoint,
// G^T [ (B^T d B) . (A dy A^T) ] G summed over tiles. Channels in and out are multiples of 16.
#include <algorithm>
#include <cstring>
#include <vector>

#include <omp.h>

#include "simd.h"
#include "products.h"
#include "slope.h"
#include "sums.h"
#include "transforms.h"

namespace {

constexpr int64_t ACCUMULATED = 1 << 27;  // floats in which threads sum up the gradients of a kernel, each its own

// dw (strides `stride`) = G^T [sums over threads] G
void kernel_gradient(const float* sums, int team, float* dw, const int64_t* stride, const Maps& maps) {
    const int64_t in = maps.channels_in, pairs = maps.pairs(), columns = maps.columns();
#pragma omp for
    for (int64_t k = 0; k < maps.channels_out; k += columns)
        for (int64_t place = k * in; place < (k + columns) * in; place += LANES) {  // LANES channels out, one in
            wide half[3 * IN], row[IN], result[9];
            for (int j = 0; j < IN; j++) {
                for (int i = 0; i < IN; i++) {
                    row[i] = wide{};
                    for (int t = 0; t < team; t++)
                        row[i] += __builtin_convertvector(load(sums + (t * POINTS + i * IN + j) * pairs + place), wide);
                }
                kernel_back([&](int i) { return row[i]; }, [&](int a, wide value) { half[a * IN + j] = value; });
            }
            for (int a = 0; a < 3; a++)
                kernel_back([&](int j) { return half[a * IN + j]; }, [&](int b, wide value) { result[a * 3 + b] = value; });
            const int64_t c = (place - k * in) / columns, first = k + place % columns;
            for (int lane = 0; lane < LANES; lane++)
                for (int a = 0; a < 3; a++)
                    for (int b = 0; b < 3; b++)
                        dw[c * stride[1] + (first + lane) * stride[0] + a * stride[2] + b * stride[3]] =
                            static_cast<float>(result[a * 3 + b][lane]);
        }
}

// y = x * w, with the sums of y and of its squares over images and positions (channels_out doubles each, or null)
template <typename T>
void convolve(const T* x, const float* w, const int64_t* stride, T* y, const Maps& whole, double* sum, double* square) {
    const int most = omp_get_max_threads();
    const Maps maps = whole.shared(most);
    float* kernel = scratch(2, POINTS * maps.pairs());
    transform_kernel(w, stride, maps, false, kernel);
    const int64_t in = maps.panels(maps.channels_in), out = maps.panels(maps.channels_out);
    const int64_t group = maps.group, groups = (maps.tiles() + group - 1) / group;
    const int threads = static_cast<int>(std::min<int64_t>(most, groups));
    const Product multiply = product_for(maps);
    std::vector<Sums> sums(sum ? threads : 0, Sums(maps.channels_out));
#pragma omp parallel num_threads(threads)
    {
        const int me = omp_get_thread_num(), team = omp_get_num_threads();
        float *points = scratch(0, POINTS * in), *m = scratch(1, POINTS * out);
        for (int64_t g = groups * me / team; g < groups * (me + 1) / team; g++) {
            const int64_t first = g * group, count = std::min(group, maps.tiles() - first);
            transform_inputs(x, maps, first, count, points);
            for (int p = 0; p < POINTS; p++)
                multiply(points + p * in, kernel + p * maps.pairs(), m + p * out, maps, count);
            transform_outputs(m, maps, first, count, y, false, sum ? &sums[me] : nullptr);
        }
    }
    for (int64_t c = 0; sum && c < maps.channels_out; c++) {
        sum[c] = square[c] = 0;
        for (const Sums& part : sums) sum[c] += part.sum[c], square[c] += part.square[c];
    }
}

// The gradients of x (dx, or null) and of w (dw); `stride` holds four strides of w, then four of dw. The gradient of y
// is made on the way by `slope`, for a few images at a time: it never leaves the cache.
template <typename T>
void differentiate(const T* x, const float* w, const int64_t* stride, const Slope<T>& slope, T* dx, bool adds, float* dw,
                   const Maps& whole) {
    const int most = omp_get_max_threads();
    const Maps all = whole.shared(most);
    Maps turned = all;
    std::swap(turned.channels_in, turned.channels_out);
    const int64_t in = all.panels(all.channels_in), out = all.panels(all.channels_out), pairs = all.pairs();
    const int64_t positions = all.height * all.width, group = all.group;
    const int64_t together = std::max<int64_t>(1, group * all.images / all.tiles());
    const int64_t chunks = (all.images + together - 1) / together;
    float* kernel = scratch(2, POINTS * pairs);
    if (dx) transform_kernel(w, stride, turned, true, kernel);
    const OuterProducts add_products = outer_products_for(all);
    const Product multiply = product_for(turned);
    const int64_t room = std::max<int64_t>(1, ACCUMULATED / (POINTS * pairs));
    const int threads = static_cast<int>(std::min({static_cast<int64_t>(most), chunks, room}));
    float* sums = scratch(3, threads * POINTS * pairs);
#pragma omp parallel num_threads(threads)
    {
        const int me = omp_get_thread_num(), team = omp_get_num_threads();
        float* mine = sums + me * POINTS * pairs;
        float *left = scratch(0, POINTS * std::max(in, out)), *right = scratch(1, POINTS * std::max(in, out));
        float* slopes = scratch(4, together * positions * all.channels_out);
        const int64_t begin = chunks * me / team, end = chunks * (me + 1) / team;
        if (begin == end) std::memset(mine, 0, sizeof(float) * POINTS * pairs);
        for (int64_t chunk = begin; chunk < end; chunk++) {
            const int64_t start = chunk * together;
            Maps maps = all, back = turned;
            maps.images = back.images = std::min(together, all.images - start);
            slope.rows(start * positions, maps.images * positions, all.channels_out, slopes);
            for (int64_t first = 0; first < maps.tiles(); first += group) {
                const int64_t count = std::min(group, maps.tiles() - first);
                transform_inputs(x + start * positions * all.channels_in, maps, first, count, left);
                transform_gradients(slopes, maps, first, count, right);
                for (int p = 0; p < POINTS; p++)
                    add_products(left + p * in, right + p * out, mine + p * pairs, maps, count,
                                 chunk == begin && first == 0);
                if (!dx) continue;
                transform_inputs(slopes, back, first, count, left);
                for (int p = 0; p < POINTS; p++)
                    multiply(left + p * out, kernel + p * pairs, right + p * in, back, count);
                transform_outputs(right, back, first, count, dx + start * positions * all.channels_in, adds, nullptr);
            }
        }
#pragma omp barrier
        kernel_gradient(sums, team, dw, stride + 4, all);
    }
}

}  // namespace

// See `convolve`; where `narrow`, x and y are of bf16.
extern "C" void winograd_convolve(int narrow, const void* x, const float* w, const int64_t* stride, void* y,
                                  int64_t images, int64_t height, int64_t width, int64_t channels_in,
                                  int64_t channels_out, double* sum, double* square) {
    by_type(narrow, [&](auto kind) {
        using T = decltype(kind);
        const Maps maps{images, height, width, channels_in, channels_out};
        convolve(static_cast<const T*>(x), w, stride, static_cast<T*>(y), maps, sum, square);
    });
}

// See `differentiate` and `Slope`; where `narrow`, maps are of bf16.
extern "C" void winograd_backward(int narrow, const void* x, const float* w, const int64_t* stride, const void* dy,
                                  const void* y, const void* convolved, void* dadded, const float* by_dy,
                                  const float* by_x, const float* constant, void* dx, int adds, float* dw,
                                  int64_t images, int64_t height, int64_t width, int64_t channels_in,
                                  int64_t channels_out) {
    by_type(narrow, [&](auto kind) {
        using T = decltype(kind);
        const Slope<T> slope{static_cast<const T*>(dy), static_cast<const T*>(y), static_cast<const T*>(convolved),
                             static_cast<T*>(dadded), by_dy, by_x, constant};
        const Maps maps{images, height, width, channels_in, channels_out};
        differentiate(static_cast<const T*>(x), w, stride, slope, static_cast<T*>(dx), adds, dw, maps);
    });
}
