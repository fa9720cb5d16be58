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
#include "points.h"
#include "sums.h"

namespace {

constexpr int ROWS = 6, COLUMNS = 2 * LANES;  // of the register block of the forward products

struct Maps {
    int64_t images, height, width, channels_in, channels_out;
    int64_t down() const { return (height + OUT - 1) / OUT; }
    int64_t across() const { return (width + OUT - 1) / OUT; }
    int64_t tiles() const { return images * down() * across(); }
    // Tiles worked on at once: few enough for the caches, and many enough to use a kernel's channels well.
    int64_t group() const { return ROWS * (std::max(channels_in, channels_out) < 32 ? 6 : 15); }
};

struct Tile {  // where a tile's outputs start
    int64_t image, row, column;
    Tile(const Maps& maps, int64_t number)
        : image(number / (maps.down() * maps.across())),
          row(number / maps.across() % maps.down() * OUT),
          column(number % maps.across() * OUT) {}
};

// points[p][tile][channel] of `count` tiles of x, the rest of the group zero
void transform_inputs(const float* x, const Maps& maps, int64_t first, int64_t count, float* points) {
    const int64_t group = maps.group(), channels = maps.channels_in, height = maps.height, width = maps.width;
    for (int64_t t = 0; t < count; t++) {
        Tile tile(maps, first + t);
        const int64_t row = tile.row - 1, column = tile.column - 1;
        const int64_t top = std::max<int64_t>(0, -row), bottom = std::min<int64_t>(IN, height - row);
        const int64_t left = std::max<int64_t>(0, -column), right = std::min<int64_t>(IN, width - column);
        const float* corner = x + ((tile.image * height + row) * width + column) * channels;
        for (int64_t c = 0; c < channels; c += LANES) {
            vec half[POINTS];
            auto to_points = [&](int i) {
                input_points([&](int j) { return half[i * IN + j]; },
                             [&](int j, vec value) { store(points + ((i * IN + j) * group + t) * channels + c, value); });
            };
            const float* place = corner + c;
            if (top == 0 && left == 0 && bottom == IN && right == IN) {
                for (int j = 0; j < IN; j++)
                    input_points([&](int i) { return load(place + (i * width + j) * channels); },
                                 [&](int i, vec value) { half[i * IN + j] = value; });
            } else {
                vec d[POINTS] = {};
                for (int64_t i = top; i < bottom; i++)
                    for (int64_t j = left; j < right; j++) d[i * IN + j] = load(place + (i * width + j) * channels);
                for (int j = 0; j < IN; j++)
                    input_points([&](int i) { return d[i * IN + j]; },
                                 [&](int i, vec value) { half[i * IN + j] = value; });
            }
            for (int i = 0; i < IN; i++) to_points(i);
        }
    }
    for (int p = 0; p < POINTS && count < group; p++)
        std::memset(points + (p * group + count) * channels, 0, sizeof(float) * (group - count) * channels);
}

void transform_gradients(const float* dy, const Maps& maps, int64_t first, int64_t count, float* points) {
    const int64_t group = maps.group(), channels = maps.channels_out, height = maps.height, width = maps.width;
    for (int64_t t = 0; t < count; t++) {
        Tile tile(maps, first + t);
        const float* image = dy + tile.image * height * width * channels;
        for (int64_t c = 0; c < channels; c += LANES) {
            vec half[IN * OUT];
            for (int j = 0; j < OUT; j++)
                output_points(
                    [&](int i) {
                        const int64_t y = tile.row + i, z = tile.column + j;
                        return y < height && z < width ? load(image + (y * width + z) * channels + c) : zero();
                    },
                    [&](int i, vec value) { half[i * OUT + j] = value; });
            for (int i = 0; i < IN; i++)
                output_points([&](int j) { return half[i * OUT + j]; },
                              [&](int j, vec value) { store(points + ((i * IN + j) * group + t) * channels + c, value); });
        }
    }
    for (int p = 0; p < POINTS && count < group; p++)
        std::memset(points + (p * group + count) * channels, 0, sizeof(float) * (group - count) * channels);
}

// m[tile][out] = points[tile][in] kernel[in][out]
void product(const float* points, const float* kernel, float* m, const Maps& maps) {
    const int64_t in = maps.channels_in, out = maps.channels_out;
    for (int64_t k = 0; k < out; k += COLUMNS)
        for (int64_t t = 0; t < maps.group(); t += ROWS) {
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
void add_outer_products(const float* points, const float* gradients, float* sum, const Maps& maps, int64_t c) {
    const int64_t in = maps.channels_in, out = maps.channels_out;
    for (int64_t k = 0; k < out; k += COLUMNS) {
        vec block[COUNT][2];
        for (int i = 0; i < COUNT; i++) {
            block[i][0] = load(sum + (c + i) * out + k);
            block[i][1] = load(sum + (c + i) * out + k + LANES);
        }
        for (int64_t t = 0; t < maps.group(); t++) {
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

void transform_outputs(const float* m, const Maps& maps, int64_t first, int64_t count, float* y, const float* added,
                       Sums* sums) {
    const int64_t group = maps.group(), channels = maps.channels_out, height = maps.height, width = maps.width;
    for (int64_t c = 0; c < channels; c += LANES) {
        vec total = zero(), squares = zero(), shift = zero();
        int64_t values = 0;
        for (int64_t t = 0; t < count; t++) {
            Tile tile(maps, first + t);
            const int64_t origin = (tile.image * height + tile.row) * width + tile.column;
            vec half[OUT * IN], o[OUT * OUT];
            for (int j = 0; j < IN; j++)
                outputs([&](int i) { return load(m + ((i * IN + j) * group + t) * channels + c); },
                        [&](int i, vec value) { half[i * IN + j] = value; });
            for (int i = 0; i < OUT; i++)
                outputs([&](int j) { return half[i * IN + j]; }, [&](int j, vec value) { o[i * OUT + j] = value; });
            if (t == 0) shift = o[0];
            const int64_t rows = std::min<int64_t>(OUT, height - tile.row);
            const int64_t columns = std::min<int64_t>(OUT, width - tile.column);
            auto put = [&](int64_t i, int64_t j) {
                const int64_t place = (origin + i * width + j) * channels + c;
                vec value = o[i * OUT + j];
                if (added) value += load(added + place);
                store(y + place, value);
                value -= shift;
                total += value;
                squares += value * value;
            };
            if (rows == OUT && columns == OUT) {
                for (int i = 0; i < OUT; i++)
                    for (int j = 0; j < OUT; j++) put(i, j);
            } else {
                for (int64_t i = 0; i < rows; i++)
                    for (int64_t j = 0; j < columns; j++) put(i, j);
            }
            values += rows * columns;
        }
        if (sums) sums->add(c, shift, total, squares, values);
    }
}

// kernel[p][in][out] of the weights w[out][in][3][3] with the given strides, or of their rotation
void transform_kernel(const float* w, const int64_t* stride, const Maps& maps, bool rotated, float* kernel) {
    const int64_t in = maps.channels_in, out = maps.channels_out;
    const int64_t by_in = rotated ? stride[0] : stride[1], by_out = rotated ? stride[1] : stride[0];
#pragma omp parallel for
    for (int64_t i = 0; i < in; i++)
        for (int64_t o = 0; o < out; o += LANES) {
            vec g[9], half[18];
            for (int a = 0; a < 3; a++)
                for (int b = 0; b < 3; b++) {
                    const int64_t row = rotated ? 2 - a : a, column = rotated ? 2 - b : b;
                    const float* place = w + i * by_in + o * by_out + row * stride[2] + column * stride[3];
                    for (int lane = 0; lane < LANES; lane++) g[a * 3 + b][lane] = place[lane * by_out];
                }
            for (int b = 0; b < 3; b++)
                kernel_points([&](int a) { return g[a * 3 + b]; }, [&](int a, vec value) { half[a * 3 + b] = value; });
            for (int a = 0; a < IN; a++)
                kernel_points([&](int b) { return half[a * 3 + b]; },
                              [&](int b, vec value) { store(kernel + ((a * IN + b) * in + i) * out + o, value); });
        }
}

}  // namespace

// y = x * w (+ added), or with `rotated` the gradient of the input from that of the output, where the channels of w
// change places. sum and square (channels_out doubles each, or null) are those of y over images and positions.
extern "C" void winograd_convolve(const float* x, const float* w, const int64_t* stride, float* y, const float* added,
                                  int64_t images, int64_t height, int64_t width, int64_t channels_in,
                                  int64_t channels_out, int rotated, double* sum, double* square) {
    const Maps maps{images, height, width, channels_in, channels_out};
    float* kernel = scratch(2, POINTS * channels_in * channels_out);
    transform_kernel(w, stride, maps, rotated, kernel);
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
                        m + p * group * channels_out, maps);
            transform_outputs(m, maps, first, count, y, added, sum ? &sums[me] : nullptr);
        }
    }
    for (int64_t c = 0; sum && c < channels_out; c++) {
        sum[c] = square[c] = 0;
        for (const Sums& part : sums) sum[c] += part.sum[c], square[c] += part.square[c];
    }
}

// dw = the gradient of the weights from the input x and the gradient dy of the output; `stride` is that of dw.
extern "C" void winograd_weights(const float* x, const float* dy, float* dw, const int64_t* stride, int64_t images,
                                 int64_t height, int64_t width, int64_t channels_in, int64_t channels_out) {
    static const double adjoint[3][IN] = {{1 / 4., -1 / 6., -1 / 6., 1 / 24., 1 / 24., 0},
                                          {0, -1 / 6., 1 / 6., 1 / 12., -1 / 12., 0},
                                          {0, -1 / 6., -1 / 6., 1 / 6., 1 / 6., 1}};
    const Maps maps{images, height, width, channels_in, channels_out};
    const int64_t group = maps.group(), groups = (maps.tiles() + group - 1) / group;
    const int64_t pairs = channels_in * channels_out;
    const int threads = omp_get_max_threads();
    float* sums = scratch(2, threads * POINTS * pairs);
#pragma omp parallel num_threads(threads)
    {
        const int me = omp_get_thread_num(), team = omp_get_num_threads();
        float* mine = sums + me * POINTS * pairs;
        std::memset(mine, 0, sizeof(float) * POINTS * pairs);
        float* points = scratch(0, POINTS * group * channels_in);
        float* gradients = scratch(1, POINTS * group * channels_out);
        for (int64_t g = groups * me / team; g < groups * (me + 1) / team; g++) {
            const int64_t first = g * group, count = std::min(group, maps.tiles() - first);
            transform_inputs(x, maps, first, count, points);
            transform_gradients(dy, maps, first, count, gradients);
            for (int p = 0; p < POINTS; p++) {
                const float* left = points + p * group * channels_in;
                const float* right = gradients + p * group * channels_out;
                int64_t c = 0;
                for (; c + 6 <= channels_in; c += 6) add_outer_products<6>(left, right, mine + p * pairs, maps, c);
                for (; c < channels_in; c += 2) add_outer_products<2>(left, right, mine + p * pairs, maps, c);
            }
        }
#pragma omp barrier
#pragma omp for
        for (int64_t pair = 0; pair < pairs; pair++) {
            double points_sum[POINTS];
            for (int p = 0; p < POINTS; p++) {
                points_sum[p] = 0;
                for (int t = 0; t < team; t++) points_sum[p] += sums[(t * POINTS + p) * pairs + pair];
            }
            float* place = dw + pair / channels_out * stride[1] + pair % channels_out * stride[0];
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
}
