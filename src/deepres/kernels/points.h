// The one-dimensional transforms of Winograd's F(4, 3): from four outputs' six inputs to six points and back.
// `from` and `to` are the steps between the values; applied to columns, then to rows, they make F(4x4, 3x3).
#pragma once
#include "lanes.h"

constexpr int POINTS = 36, OUT = 4, IN = 6;

// B^T d
inline void input_points(const vec* d, int from, vec* o, int to) {
    vec d0 = d[0], d1 = d[from], d2 = d[2 * from], d3 = d[3 * from], d4 = d[4 * from], d5 = d[5 * from];
    vec a = d4 - 4.f * d2, b = d3 - 4.f * d1, c = d4 - d2, e = 2.f * (d3 - d1);
    o[0] = 4.f * d0 - 5.f * d2 + d4;
    o[to] = a + b;
    o[2 * to] = a - b;
    o[3 * to] = c + e;
    o[4 * to] = c - e;
    o[5 * to] = 4.f * d1 - 5.f * d3 + d5;
}

// A^T m
inline void outputs(const vec* m, int from, vec* o, int to) {
    vec a = m[from] + m[2 * from], b = m[from] - m[2 * from];
    vec c = m[3 * from] + m[4 * from], d = m[3 * from] - m[4 * from];
    o[0] = m[0] + a + c;
    o[to] = b + 2.f * d;
    o[2 * to] = a + 4.f * c;
    o[3 * to] = b + 8.f * d + m[5 * from];
}

// A y
inline void output_points(const vec* y, int from, vec* o, int to) {
    vec y0 = y[0], y1 = y[from], y2 = y[2 * from], y3 = y[3 * from];
    vec a = y0 + y2, b = y1 + y3, c = y0 + 4.f * y2, d = 2.f * y1 + 8.f * y3;
    o[0] = y0;
    o[to] = a + b;
    o[2 * to] = a - b;
    o[3 * to] = c + d;
    o[4 * to] = c - d;
    o[5 * to] = y3;
}

// G g
inline void kernel_points(const vec* g, int from, vec* o, int to) {
    vec ends = (g[0] + g[2 * from]) / 6.f, middle = g[from] / 6.f, far = g[0] / 24.f + g[2 * from] / 6.f;
    o[0] = g[0] / 4.f;
    o[to] = -(ends + middle);
    o[2 * to] = middle - ends;
    o[3 * to] = far + middle / 2.f;
    o[4 * to] = far - middle / 2.f;
    o[5 * to] = g[2 * from];
}
