// Vectors of eight floats; the compiler maps them to what the processor has (AVX2, AVX-512, NEON).
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>

constexpr int LANES = 8;
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef double wide __attribute__((vector_size(8 * LANES)));

static inline vec load(const float* place) { return *reinterpret_cast<const vec*>(place); }
static inline void store(float* place, vec value) { *reinterpret_cast<vec*>(place) = value; }
static inline vec zero() { return vec{}; }

// Aligned scratch memory of a thread, number 0 to 4. It stays for the next call: fresh pages cost more than
// the work that is done on them.
static inline float* scratch(int number, int64_t floats) {
    struct Free { void operator()(float* place) const { std::free(place); } };
    static thread_local std::unique_ptr<float, Free> kept[5];
    static thread_local int64_t size[5] = {};
    if (size[number] < floats) {
        void* place = nullptr;
        if (posix_memalign(&place, 64, floats * sizeof(float))) std::abort();
        kept[number].reset(static_cast<float*>(place));
        size[number] = floats;
    }
    return kept[number].get();
}
