// 3x3 convolutions of stride 1 and padding 1 on channels-last float maps, by Winograd's F(4x4, 3x3):
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

#include "lanes.h"
#include "slope.h"
#include "sums.h"
#include "transforms.h"

namespace {

constexpr int64_t ACCUMULATED = 1 << 27;  // floats in which threads sum up the gradients of a kernel, each its own

// m = points kernel, for one point; `kernel` is [out / COLUMNS][in][COLUMNS], the others are in panels
void product(const float* points, const float* kernel, float* m, const Maps& maps, int64_t count) {
    const int64_t in = maps.channels_in, out = maps.channels_out, group = maps.group;
    for (int64_t start = 0; start < in; start += DEPTH)
        for (int64_t k = 0; k < out; k += COLUMNS) {
            const int64_t end = std::min(start + DEPTH, in);
            float *left = m + k * group, *right = left + LANES * group;
            for (int64_t t = 0; t < count; t += ROWS) {
                vec sum[ROWS][2] = {};
                if (start)
                    for (int i = 0; i < ROWS; i++) {
                        sum[i][0] = load(left + (t + i) * LANES);
                        sum[i][1] = load(right + (t + i) * LANES);
                    }
                const float* weights = kernel + k * in + start * COLUMNS;
                for (int64_t c = start; c < end; c += LANES) {
                    const float* values = points + c * group + t * LANES;
#pragma GCC unroll 8
                    for (int lane = 0; lane < LANES; lane++, weights += COLUMNS) {
                        const vec first = load(weights), second = load(weights + LANES);
#pragma GCC unroll 6
                        for (int i = 0; i < ROWS; i++) {
                            sum[i][0] += values[i * LANES + lane] * first;
                            sum[i][1] += values[i * LANES + lane] * second;
                        }
                    }
                }
                for (int i = 0; i < ROWS; i++) {
                    store(left + (t + i) * LANES, sum[i][0]);
                    store(right + (t + i) * LANES, sum[i][1]);
                }
            }
        }
}

// sum[c to c + COUNT][COLUMNS] += (where `fresh`, =) points^T gradients, for one panel of COLUMNS gradients
template <int COUNT>
void add_outer_products(const float* points, const float* gradients, float* sum, int64_t group, int64_t count,
                        bool fresh, int64_t c) {
    const float* values[COUNT];
    vec block[COUNT][2];
    for (int i = 0; i < COUNT; i++) {
        values[i] = points + (c + i) / LANES * LANES * group + (c + i) % LANES;
        block[i][0] = fresh ? zero() : load(sum + (c + i) * COLUMNS);
        block[i][1] = fresh ? zero() : load(sum + (c + i) * COLUMNS + LANES);
    }
    for (int64_t t = 0; t < count * LANES; t += LANES) {
        const vec left = load(gradients + t), right = load(gradients + LANES * group + t);
#pragma GCC unroll 6
        for (int i = 0; i < COUNT; i++) {
            block[i][0] += values[i][t] * left;
            block[i][1] += values[i][t] * right;
        }
    }
    for (int i = 0; i < COUNT; i++) {
        store(sum + (c + i) * COLUMNS, block[i][0]);
        store(sum + (c + i) * COLUMNS + LANES, block[i][1]);
    }
}

// sum += (where `fresh`, =) points^T gradients, for one point; `sum` is [out / COLUMNS][in][COLUMNS], the others are in panels
void outer_products(const float* points, const float* gradients, float* sum, const Maps& maps, int64_t count,
                    bool fresh) {
    const int64_t in = maps.channels_in, group = maps.group;
    for (int64_t k = 0; k < maps.channels_out; k += COLUMNS) {
        const float* panel = gradients + k * group;
        int64_t c = 0;
        for (; in - c >= 6 && in - c != 8; c += 6)
            add_outer_products<6>(points, panel, sum + k * in, group, count, fresh, c);
        for (; c < in; c += 4) add_outer_products<4>(points, panel, sum + k * in, group, count, fresh, c);
    }
}

// dw (strides `stride`) = G^T [sums over threads] G
void kernel_gradient(const float* sums, int team, float* dw, const int64_t* stride, const Maps& maps) {
    const int64_t in = maps.channels_in, pairs = maps.pairs();
#pragma omp for
    for (int64_t k = 0; k < maps.channels_out; k += COLUMNS)
        for (int64_t place = k * in; place < (k + COLUMNS) * in; place += LANES) {  // LANES channels out, one in
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
            const int64_t c = (place - k * in) / COLUMNS, first = k + place % COLUMNS;
            for (int lane = 0; lane < LANES; lane++)
                for (int a = 0; a < 3; a++)
                    for (int b = 0; b < 3; b++)
                        dw[c * stride[1] + (first + lane) * stride[0] + a * stride[2] + b * stride[3]] =
                            static_cast<float>(result[a * 3 + b][lane]);
        }
}

}  // namespace

// y = x * w; `stride` is that of w. sum and square (channels_out doubles each, or null) are those of y over images and
// positions.
extern "C" void winograd_convolve(const float* x, const float* w, const int64_t* stride, float* y, int64_t images,
                                  int64_t height, int64_t width, int64_t channels_in, int64_t channels_out,
                                  double* sum, double* square) {
    const int most = omp_get_max_threads();
    const Maps maps = Maps{images, height, width, channels_in, channels_out}.shared(most);
    float* kernel = scratch(2, POINTS * maps.pairs());
    transform_kernel(w, stride, maps, false, kernel);
    const int64_t group = maps.group, groups = (maps.tiles() + group - 1) / group;
    const int threads = static_cast<int>(std::min<int64_t>(most, groups));
    std::vector<Sums> sums(sum ? threads : 0, Sums(channels_out));
#pragma omp parallel num_threads(threads)
    {
        const int me = omp_get_thread_num(), team = omp_get_num_threads();
        float* points = scratch(0, POINTS * maps.panels(channels_in));
        float* m = scratch(1, POINTS * maps.panels(channels_out));
        for (int64_t g = groups * me / team; g < groups * (me + 1) / team; g++) {
            const int64_t first = g * group, count = std::min(group, maps.tiles() - first);
            transform_inputs(x, maps, first, count, points);
            for (int p = 0; p < POINTS; p++)
                product(points + p * maps.panels(channels_in), kernel + p * maps.pairs(),
                        m + p * maps.panels(channels_out), maps, count);
            transform_outputs(m, maps, first, count, y, sum ? &sums[me] : nullptr);
        }
    }
    for (int64_t c = 0; sum && c < channels_out; c++) {
        sum[c] = square[c] = 0;
        for (const Sums& part : sums) sum[c] += part.sum[c], square[c] += part.square[c];
    }
}

// The gradients of x (dx, or null) and of the weights w (dw); `stride` holds four strides of w, then four of dw. The
// gradient of y is made on the way from that of normalization, addition and ReLU (see `Slope`), for a few images at a
// time: it never leaves the cache.
extern "C" void winograd_backward(const float* x, const float* w, const int64_t* stride, const float* dy,
                                  const float* y, const float* convolved, float* dadded, const float* by_dy,
                                  const float* by_x, const float* constant, float* dx, float* dw, int64_t images,
                                  int64_t height, int64_t width, int64_t channels_in, int64_t channels_out) {
    const int most = omp_get_max_threads();
    const Maps all = Maps{images, height, width, channels_in, channels_out}.shared(most);
    const int64_t pairs = all.pairs(), positions = height * width, group = all.group;
    const int64_t together = std::max<int64_t>(1, group * images / all.tiles());
    const int64_t chunks = (images + together - 1) / together;
    const Slope slope{dy, y, convolved, dadded, by_dy, by_x, constant};
    float* kernel = scratch(2, POINTS * pairs);
    if (dx) transform_kernel(w, stride, Maps{images, height, width, channels_out, channels_in}, true, kernel);
    const int64_t room = std::max<int64_t>(1, ACCUMULATED / (POINTS * pairs));
    const int threads = static_cast<int>(std::min({static_cast<int64_t>(most), chunks, room}));
    float* sums = scratch(3, threads * POINTS * pairs);
#pragma omp parallel num_threads(threads)
    {
        const int me = omp_get_thread_num(), team = omp_get_num_threads();
        float* mine = sums + me * POINTS * pairs;
        float* left = scratch(0, POINTS * all.panels(std::max(channels_in, channels_out)));
        float* right = scratch(1, POINTS * all.panels(std::max(channels_in, channels_out)));
        float* slopes = scratch(4, together * positions * channels_out);
        const int64_t begin = chunks * me / team, end = chunks * (me + 1) / team;
        if (begin == end) std::memset(mine, 0, sizeof(float) * POINTS * pairs);
        for (int64_t chunk = begin; chunk < end; chunk++) {
            const int64_t start = chunk * together, some = std::min(together, images - start);
            const Maps maps{some, height, width, channels_in, channels_out, group};
            const Maps back{some, height, width, channels_out, channels_in, group};
            slope.rows(start * positions, some * positions, channels_out, slopes);
            for (int64_t first = 0; first < maps.tiles(); first += group) {
                const int64_t count = std::min(group, maps.tiles() - first);
                transform_inputs(x + start * positions * channels_in, maps, first, count, left);
                transform_gradients(slopes, maps, first, count, right);
                for (int p = 0; p < POINTS; p++)
                    outer_products(left + p * all.panels(channels_in), right + p * all.panels(channels_out),
                                   mine + p * pairs, maps, count, chunk == begin && first == 0);
                if (!dx) continue;
                transform_inputs(slopes, back, first, count, left);
                for (int p = 0; p < POINTS; p++)
                    product(left + p * all.panels(channels_out), kernel + p * pairs,
                            right + p * all.panels(channels_in), back, count);
                transform_outputs(right, back, first, count, dx + start * positions * channels_in, nullptr);
            }
        }
#pragma omp barrier
        kernel_gradient(sums, team, dw, stride + 4, all);
    }
}
