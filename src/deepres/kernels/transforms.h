// Winograd's transforms of whole tiles, between channels-last maps and points[p] in panels: [channel / LANES][tile][LANES].
// Products of matrices then read all they need one after the other, however many channels there are.
#pragma once
#include <algorithm>

#include "simd.h"
#include "winograd_points.h"
#include "sums.h"

constexpr int ROWS = LANES == 16 ? 12 : 6;    // of the register block of the products
constexpr int LINE = 16;                      // floats of a cache line
constexpr int64_t DEPTH = 256;                // channels in of a product whose weights stay in the nearest cache

struct Maps {
    int64_t images, height, width, channels_in, channels_out, group = 0;  // group: see `shared`
    int64_t down() const { return (height + OUT - 1) / OUT; }
    int64_t across() const { return (width + OUT - 1) / OUT; }
    int64_t tiles() const { return images * down() * across(); }
    // Of the register block: two vectors of channels out where there are so many.
    int64_t columns() const { return channels_out % (2 * LANES) ? LANES : 2 * LANES; }
    // For `threads` of them: tiles worked on at once, few enough for the caches and for each thread to have some, and
    // many enough to use a kernel's channels well, by measurement.
    Maps shared(int64_t threads) const {
        const bool few = LANES == 16 || std::max(channels_in, channels_out) < 32;
        const int64_t most = (few ? 36 : 90) / ROWS, rows = threads * ROWS;
        Maps some = *this;
        some.group = ROWS * std::min(most, (tiles() + rows - 1) / rows);
        return some;
    }
    // Floats from a point to the next: a line more than there are, since powers of two fall on each other in caches.
    int64_t pairs() const { return channels_in * channels_out + LINE; }
    int64_t panels(int64_t channels) const { return channels * group + LINE; }
    // Where channel c (a multiple of LANES) of a tile lies in the panels of point p.
    int64_t place(int p, int64_t channels, int64_t c, int64_t tile) const {
        return p * panels(channels) + c * group + tile * LANES;
    }
};

struct Tile {  // where a tile's outputs start
    int64_t image, row, column;
    Tile(const Maps& maps, int64_t number)
        : image(number / (maps.down() * maps.across())),
          row(number / maps.across() % maps.down() * OUT),
          column(number % maps.across() * OUT) {}
};

// points of `count` tiles of x
template <typename T>
inline void transform_inputs(const T* x, const Maps& maps, int64_t first, int64_t count, float* points) {
    static const T outside[LANES] = {};
    const int64_t channels = maps.channels_in, height = maps.height, width = maps.width;
    for (int64_t t = 0; t < count; t++) {
        Tile tile(maps, first + t);
        const int64_t row = tile.row - 1, column = tile.column - 1;
        const int64_t left = std::max<int64_t>(0, -column), right = std::min<int64_t>(IN, width - column);
        const T* corner = x + ((tile.image * height + row) * width + column) * channels;
        for (int64_t c = 0; c < channels; c += LANES) {
            const T* start[IN];
            int64_t step[IN];
            for (int i = 0; i < IN; i++) {
                const bool inside = row + i >= 0 && row + i < height;
                start[i] = inside ? corner + i * width * channels + c : outside;
                step[i] = inside ? channels : 0;
            }
            vec half[POINTS];
            for (int j = 0; j < IN; j++) {
                if (j < left || j >= right)
                    for (int i = 0; i < IN; i++) half[i * IN + j] = zero();
                else
                    input_points([&](int i) { return load(start[i] + j * step[i]); },
                                 [&](int i, vec value) { half[i * IN + j] = value; });
            }
            for (int i = 0; i < IN; i++)
                input_points([&](int j) { return half[i * IN + j]; },
                             [&](int j, vec value) { store(points + maps.place(i * IN + j, channels, c, t), value); });
        }
    }
}

inline void transform_gradients(const float* dy, const Maps& maps, int64_t first, int64_t count, float* points) {
    const int64_t channels = maps.channels_out, height = maps.height, width = maps.width;
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
                              [&](int j, vec value) { store(points + maps.place(i * IN + j, channels, c, t), value); });
        }
    }
}

// y of `count` tiles, or y + these where it `adds`, and their sums (or null)
template <typename T>
inline void transform_outputs(const float* m, const Maps& maps, int64_t first, int64_t count, T* y, bool adds, Sums* sums) {
    const int64_t channels = maps.channels_out, height = maps.height, width = maps.width;
    for (int64_t c = 0; c < channels; c += LANES) {
        vec total = zero(), squares = zero(), shift = zero();
        int64_t values = 0;
        for (int64_t t = 0; t < count; t++) {
            Tile tile(maps, first + t);
            const int64_t origin = (tile.image * height + tile.row) * width + tile.column;
            vec half[OUT * IN], o[OUT * OUT];
            for (int j = 0; j < IN; j++)
                outputs([&](int i) { return load(m + maps.place(i * IN + j, channels, c, t)); },
                        [&](int i, vec value) { half[i * IN + j] = value; });
            for (int i = 0; i < OUT; i++)
                outputs([&](int j) { return half[i * IN + j]; }, [&](int j, vec value) { o[i * OUT + j] = value; });
            if (t == 0) shift = o[0];
            const int64_t rows = std::min<int64_t>(OUT, height - tile.row);
            const int64_t columns = std::min<int64_t>(OUT, width - tile.column);
            auto put = [&](int64_t i, int64_t j) {
                const int64_t place = (origin + i * width + j) * channels + c;
                vec value = o[i * OUT + j];
                store(y + place, adds ? load(y + place) + value : value);
                if (sizeof(T) == 2) value = load(y + place);  // the sums are of what is normalised: rounded values
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

// kernel[p][out / columns][in][columns] of the weights w[out][in][3][3] with the given strides, or of their rotation
inline void transform_kernel(const float* w, const int64_t* stride, const Maps& maps, bool rotated, float* kernel) {
    const int64_t in = maps.channels_in, out = maps.channels_out, columns = maps.columns();
    const int64_t by_in = rotated ? stride[0] : stride[1], by_out = rotated ? stride[1] : stride[0];
#pragma omp parallel for
    for (int64_t k = 0; k < out; k += columns)
        for (int64_t place = k * in; place < (k + columns) * in; place += LANES) {  // LANES channels out, one in
            const int64_t i = (place - k * in) / columns, o = k + place % columns;
            vec g[9], half[18];
            for (int a = 0; a < 3; a++)
                for (int b = 0; b < 3; b++) {
                    const int64_t row = rotated ? 2 - a : a, column = rotated ? 2 - b : b;
                    const float* first = w + i * by_in + o * by_out + row * stride[2] + column * stride[3];
                    for (int lane = 0; lane < LANES; lane++) g[a * 3 + b][lane] = first[lane * by_out];
                }
            for (int b = 0; b < 3; b++)
                kernel_points([&](int a) { return g[a * 3 + b]; }, [&](int a, vec value) { half[a * 3 + b] = value; });
            for (int a = 0; a < IN; a++)
                kernel_points([&](int b) { return half[a * 3 + b]; },
                              [&](int b, vec value) { store(kernel + (a * IN + b) * maps.pairs() + place, value); });
        }
}
