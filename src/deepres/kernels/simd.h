// Vectors of floats as long as the processor's (sixteen with AVX-512, else eight: AVX2, or two of NEON's).
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef double wide __attribute__((vector_size(8 * LANES)));

static inline vec load(const float* place) { return *reinterpret_cast<const vec*>(place); }
static inline void store(float* place, vec value) { *reinterpret_cast<vec*>(place) = value; }
static inline vec zero() { return vec{}; }

// Maps in memory are of float or of bf16, which has half of its bits; all is computed in float.
struct bf16 { uint16_t bits; };
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));

static inline vec load(const bf16* place) {
    return reinterpret_cast<vec>(__builtin_convertvector(*reinterpret_cast<const halves*>(place), words) << 16);
}
static inline void store(bf16* place, vec value) {  // to nearest, ties to even; the instruction makes the smallest 0
#ifdef __AVX512BF16__
    const auto rounded = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(value));
    *reinterpret_cast<halves*>(place) = reinterpret_cast<halves>(rounded);
#else
    const words all = reinterpret_cast<words>(value), rounded = (all + 0x7fff + ((all >> 16) & 1)) >> 16;
    *reinterpret_cast<halves*>(place) = __builtin_convertvector(value == value ? rounded : (all >> 16) | 0x40, halves);
#endif
}

// work(T{}) for the type T of maps
template <typename Work>
inline void by_type(int narrow, Work work) {
    if (narrow) work(bf16{});
    else work(float{});
}

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
