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

// m[tile][out] = points[tile][in] kernel[in][out]
void product(const float* points, const float* kernel, float* m, const Maps& maps, int64_t count) {
    const int64_t in = maps.channels_in, out = maps.channels_out;
    for (int64_t k = 0; k < out; k += COLUMNS)
        for (int64_t t = 0; t < count; t += ROWS) {
            vec sum[ROWS][2] = {};
            for (int64_t c = 0; c < in; c++) {
                const vec left = load(kernel + c * out + k), right = load(kernel + c * out + k + LANES);
#pragma GCC unroll 6
                for (int i = 0; i < ROWS; i++) {
                    const float value = points[(t + i) * in + c];
                    sum[i][0] += value * left;
                    sum[i][1] += value * right;
                }
            }
            for (int i = 0; i < ROWS; i++) {
                store(m + (t + i) * out + k, sum[i][0]);
                store(m + (t + i) * out + k + LANES, sum[i][1]);
            }
        }
}

// sum[in][out] += points[tile][in]^T gradients[tile][out]
template <int COUNT>
void add_outer_products(const float* points, const float* gradients, float* sum, const Maps& maps, int64_t count,
                        int64_t c) {
    const int64_t in = maps.channels_in, out = maps.channels_out;
    for (int64_t k = 0; k < out; k += COLUMNS) {
        vec block[COUNT][2];
        for (int i = 0; i < COUNT; i++) {
            block[i][0] = load(sum + (c + i) * out + k);
            block[i][1] = load(sum + (c + i) * out + k + LANES);
        }
        for (int64_t t = 0; t < count; t++) {
            const vec left = load(gradients + t * out + k), right = load(gradients + t * out + k + LANES);
#pragma GCC unroll 6
            for (int i = 0; i < COUNT; i++) {
                const float value = points[t * in + c + i];
                block[i][0] += value * left;
                block[i][1] += value * right;
            }
        }
        for (int i = 0; i < COUNT; i++) {
            store(sum + (c + i) * out + k, block[i][0]);
            store(sum + (c + i) * out + k + LANES, block[i][1]);
        }
    }
}

void outer_products(const float* points, const float* gradients, float* sum, const Maps& maps, int64_t count) {
    int64_t c = 0;
    for (; c + 6 <= maps.channels_in; c += 6) add_outer_products<6>(points, gradients, sum, maps, count, c);
    for (; c < maps.channels_in; c += 2) add_outer_products<2>(points, gradients, sum, maps, count, c);
}

// dw (strides `stride`) = G^T [sums over threads] G
void kernel_gradient(const float* sums, int team, float* dw, const int64_t* stride, const Maps& maps) {
    static const double adjoint[3][IN] = {{1 / 4., -1 / 6., -1 / 6., 1 / 24., 1 / 24., 0},
                                          {0, -1 / 6., 1 / 6., 1 / 12., -1 / 12., 0},
                                          {0, -1 / 6., -1 / 6., 1 / 6., 1 / 6., 1}};
    const int64_t pairs = maps.channels_in * maps.channels_out;
#pragma omp for
    for (int64_t pair = 0; pair < pairs; pair++) {
        double points_sum[POINTS];
        for (int p = 0; p < POINTS; p++) {
            points_sum[p] = 0;
            for (int t = 0; t < team; t++) points_sum[p] += sums[(t * POINTS + p) * pairs + pair];
        }
        float* place = dw + pair / maps.channels_out * stride[1] + pair % maps.channels_out * stride[0];
        for (int a = 0; a < 3; a++) {
            double half[IN] = {};
            for (int i = 0; i < IN; i++)
                for (int j = 0; j < IN; j++) half[j] += adjoint[a][i] * points_sum[i * IN + j];
            for (int b = 0; b < 3; b++) {
                double value = 0;
                for (int j = 0; j < IN; j++) value += half[j] * adjoint[b][j];
                place[a * stride[2] + b * stride[3]] = static_cast<float>(value);
            }
        }
    }
}

}  // namespace

// y = x * w; `stride` is that of w. sum and square (channels_out doubles each, or null) are those of y over images and
// positions.
extern "C" void winograd_convolve(const float* x, const float* w, const int64_t* stride, float* y, int64_t images,
                                  int64_t height, int64_t width, int64_t channels_in, int64_t channels_out,
                                  double* sum, double* square) {
    const Maps maps{images, height, width, channels_in, channels_out};
    float* kernel = scratch(2, POINTS * channels_in * channels_out);
    transform_kernel(w, stride, maps, false, kernel);
    const int64_t group = maps.group(), groups = (maps.tiles() + group - 1) / group;
    const int threads = omp_get_max_threads();
    std::vector<Sums> sums(sum ? threads : 0, Sums(channels_out));
#pragma omp parallel num_threads(threads)
    {
        const int me = omp_get_thread_num(), team = omp_get_num_threads();
        float* points = scratch(0, POINTS * group * channels_in);
        float* m = scratch(1, POINTS * group * channels_out);
        for (int64_t g = groups * me / team; g < groups * (me + 1) / team; g++) {
            const int64_t first = g * group, count = std::min(group, maps.tiles() - first);
            transform_inputs(x, maps, first, count, points);
            for (int p = 0; p < POINTS; p++)
                product(points + p * group * channels_in, kernel + p * channels_in * channels_out,
                        m + p * group * channels_out, maps, count);
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
    const Maps all{images, height, width, channels_in, channels_out};
    const int64_t pairs = channels_in * channels_out, positions = height * width, group = all.group();
    const int64_t together = std::max<int64_t>(1, group * images / all.tiles());
    const int64_t chunks = (images + together - 1) / together;
    const Slope slope{dy, y, convolved, dadded, by_dy, by_x, constant};
    float* kernel = scratch(2, POINTS * pairs);
    if (dx) transform_kernel(w, stride, Maps{images, height, width, channels_out, channels_in}, true, kernel);
    const int threads = omp_get_max_threads();
    float* sums = scratch(3, threads * POINTS * pairs);
#pragma omp parallel num_threads(threads)
    {
        const int me = omp_get_thread_num(), team = omp_get_num_threads();
        float* mine = sums + me * POINTS * pairs;
        std::memset(mine, 0, sizeof(float) * POINTS * pairs);
        float* left = scratch(0, POINTS * group * std::max(channels_in, channels_out));
        float* right = scratch(1, POINTS * group * std::max(channels_in, channels_out));
        float* slopes = scratch(4, together * positions * channels_out);
        for (int64_t chunk = chunks * me / team; chunk < chunks * (me + 1) / team; chunk++) {
            const int64_t start = chunk * together, some = std::min(together, images - start);
            const Maps maps{some, height, width, channels_in, channels_out};
            const Maps back{some, height, width, channels_out, channels_in};
            slope.rows(start * positions, some * positions, channels_out, slopes);
            for (int64_t first = 0; first < maps.tiles(); first += group) {
                const int64_t count = std::min(group, maps.tiles() - first);
                transform_inputs(x + start * positions * channels_in, maps, first, count, left);
                transform_gradients(slopes, maps, first, count, right);
                for (int p = 0; p < POINTS; p++)
                    outer_products(left + p * group * channels_in, right + p * group * channels_out, mine + p * pairs,
                                   maps, count);
                if (!dx) continue;
                transform_inputs(slopes, back, first, count, left);
                for (int p = 0; p < POINTS; p++)
                    product(left + p * group * channels_out, kernel + p * pairs, right + p * group * channels_in, back,
                            count);
                transform_outputs(right, back, first, count, dx + start * positions * channels_in, nullptr);
            }
        }
#pragma omp barrier
        kernel_gradient(sums, team, dw, stride + 4, all);
    }
}
