// Products of matrices in panels: tiles of a map by channels, in the order in which they are read.
#pragma once
#include <algorithm>

#include "transforms.h"

// m = points kernel, for one point and register blocks of ROWS tiles and WIDTH vectors of channels out; `kernel` is
// [out / columns][in][columns], the others are in panels
template <int WIDTH>
inline void product(const float* points, const float* kernel, float* m, const Maps& maps, int64_t count) {
    constexpr int COLUMNS = WIDTH * LANES;
    const int64_t in = maps.channels_in, out = maps.channels_out, group = maps.group;
    for (int64_t start = 0; start < in; start += DEPTH)
        for (int64_t k = 0; k < out; k += COLUMNS) {
            const int64_t end = std::min(start + DEPTH, in);
            for (int64_t t = 0; t < count; t += ROWS) {
                float* result = m + k * group + t * LANES;
                vec sum[ROWS][WIDTH] = {};
                if (start)
#pragma GCC unroll 12
                    for (int i = 0; i < ROWS; i++)
                        for (int v = 0; v < WIDTH; v++) sum[i][v] = load(result + (v * group + i) * LANES);
                const float* weights = kernel + k * in + start * COLUMNS;
                for (int64_t c = start; c < end; c += LANES) {
                    const float* values = points + c * group + t * LANES;
#pragma GCC unroll 8
                    for (int lane = 0; lane < LANES; lane++, weights += COLUMNS) {
                        vec weight[WIDTH];
                        for (int v = 0; v < WIDTH; v++) weight[v] = load(weights + v * LANES);
#pragma GCC unroll 12
                        for (int i = 0; i < ROWS; i++)
                            for (int v = 0; v < WIDTH; v++) sum[i][v] += values[i * LANES + lane] * weight[v];
                    }
                }
#pragma GCC unroll 12
                for (int i = 0; i < ROWS; i++)
                    for (int v = 0; v < WIDTH; v++) store(result + (v * group + i) * LANES, sum[i][v]);
            }
        }
}

// sum[c to c + COUNT][columns] += (where `fresh`, =) points^T gradients, for one panel of WIDTH vectors of gradients
template <int COUNT, int WIDTH>
inline void add_outer_products(const float* points, const float* gradients, float* sum, int64_t group, int64_t count,
                               bool fresh, int64_t c) {
    constexpr int COLUMNS = WIDTH * LANES;
    const auto channel = [=](int64_t i) { return points + i / LANES * LANES * group + i % LANES; };
    const float *first = channel(c), *values[COUNT];  // six channels fall into two panels at times, others never
    vec block[COUNT][WIDTH];
#pragma GCC unroll 16
    for (int i = 0; i < COUNT; i++) {
        values[i] = channel(c + i);
        for (int v = 0; v < WIDTH; v++) block[i][v] = fresh ? zero() : load(sum + (c + i) * COLUMNS + v * LANES);
    }
    for (int64_t t = 0; t < count * LANES; t += LANES) {
        vec gradient[WIDTH];
        for (int v = 0; v < WIDTH; v++) gradient[v] = load(gradients + v * LANES * group + t);
#pragma GCC unroll 16
        for (int i = 0; i < COUNT; i++)
            for (int v = 0; v < WIDTH; v++)
                block[i][v] += (LANES % COUNT ? values[i][t] : first[t + i]) * gradient[v];
    }
#pragma GCC unroll 16
    for (int i = 0; i < COUNT; i++)
        for (int v = 0; v < WIDTH; v++) store(sum + (c + i) * COLUMNS + v * LANES, block[i][v]);
}

// sum += (where `fresh`, =) points^T gradients, for one point; `sum` is [out / columns][in][columns], the others are in panels
template <int WIDTH>
inline void outer_products(const float* points, const float* gradients, float* sum, const Maps& maps, int64_t count,
                           bool fresh) {
    constexpr int MANY = LANES == 16 ? 16 / WIDTH : 6;  // channels in of a register block
    const int64_t in = maps.channels_in, group = maps.group;
    for (int64_t k = 0; k < maps.channels_out; k += WIDTH * LANES) {
        const float* panel = gradients + k * group;
        int64_t c = 0;
        for (; in - c >= MANY && (LANES % MANY == 0 || in - c != 8); c += MANY)  // the last 8 as 4 + 4, not as 6 + 2
            add_outer_products<MANY, WIDTH>(points, panel, sum + k * in, group, count, fresh, c);
        for (; c < in; c += 4) add_outer_products<4, WIDTH>(points, panel, sum + k * in, group, count, fresh, c);
    }
}

using Product = void (*)(const float*, const float*, float*, const Maps&, int64_t);
using OuterProducts = void (*)(const float*, const float*, float*, const Maps&, int64_t, bool);
inline Product product_for(const Maps& maps) { return maps.columns() == LANES ? product<1> : product<2>; }
inline OuterProducts outer_products_for(const Maps& maps) {
    return maps.columns() == LANES ? outer_products<1> : outer_products<2>;
}
