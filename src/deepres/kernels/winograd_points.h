// The one-dimensional transforms of Winograd's F(4, 3): from four outputs' six inputs to six points and back.
// `from(i)` gives value i, `to(i, value)` takes result i; applied to columns, then to rows, they make F(4x4, 3x3).
#pragma once
#include "simd.h"

constexpr int POINTS = 36, OUT = 4, IN = 6;

// B^T d
template <typename From, typename To>
inline void input_points(From from, To to) {
    const vec d0 = from(0), d1 = from(1), d2 = from(2), d3 = from(3), d4 = from(4), d5 = from(5);
    const vec a = d4 - 4.f * d2, b = d3 - 4.f * d1, c = d4 - d2, e = 2.f * (d3 - d1);
    to(0, 4.f * d0 - 5.f * d2 + d4);
    to(1, a + b);
    to(2, a - b);
    to(3, c + e);
    to(4, c - e);
    to(5, 4.f * d1 - 5.f * d3 + d5);
}

// A^T m
template <typename From, typename To>
inline void outputs(From from, To to) {
    const vec m1 = from(1), m2 = from(2), m3 = from(3), m4 = from(4);
    const vec a = m1 + m2, b = m1 - m2, c = m3 + m4, d = m3 - m4;
    to(0, from(0) + a + c);
    to(1, b + 2.f * d);
    to(2, a + 4.f * c);
    to(3, b + 8.f * d + from(5));
}

// A y
template <typename From, typename To>
inline void output_points(From from, To to) {
    const vec y0 = from(0), y1 = from(1), y2 = from(2), y3 = from(3);
    const vec a = y0 + y2, b = y1 + y3, c = y0 + 4.f * y2, d = 2.f * y1 + 8.f * y3;
    to(0, y0);
    to(1, a + b);
    to(2, a - b);
    to(3, c + d);
    to(4, c - d);
    to(5, y3);
}

// G g
template <typename From, typename To>
inline void kernel_points(From from, To to) {
    const vec g0 = from(0), g1 = from(1), g2 = from(2);
    const vec ends = (g0 + g2) * (1 / 6.f), middle = g1 * (1 / 6.f), far = g0 * (1 / 24.f) + g2 * (1 / 6.f);
    to(0, g0 / 4.f);
    to(1, -(ends + middle));
    to(2, middle - ends);
    to(3, far + middle / 2.f);
    to(4, far - middle / 2.f);
    to(5, g2);
}

// G^T s, in double precision
template <typename From, typename To>
inline void kernel_back(From from, To to) {
    const wide a = from(1) + from(2), b = from(2) - from(1), c = from(3) + from(4), d = from(3) - from(4);
    to(0, from(0) / 4. - a * (1 / 6.) + c * (1 / 24.));
    to(1, b * (1 / 6.) + d * (1 / 12.));
    to(2, (c - a) * (1 / 6.) + from(5));
}
