/*
 * intrinsics.h: the few DSP instructions that generated kernels are made of, each with its scalar meaning, and a plain C twin
 * of the same meaning where the core (or the host that runs the tests) has no DSP extension.
 *
 * "lo" and "hi" are the signed 16-bit halves of a word; byte 0 is the least significant one. Everything is little endian.
 */
#ifndef INTRINSICS_H
#define INTRINSICS_H

#include <stdint.h>
#include <string.h>

#if defined(__ARM_FEATURE_DSP)
#include <arm_acle.h>
#endif

/* The word at any address: one LDR, which Cortex-M4 and M7 also do unaligned. */
static inline uint32_t load_u32(const void *from)
{
    uint32_t word;

    memcpy(&word, from, sizeof word);
    return word;
}

/* Stores a word at any address: one STR. */
static inline void store_u32(void *to, uint32_t word)
{
    memcpy(to, &word, sizeof word);
}

static inline int32_t lo_s16(uint32_t word)
{
    return (int16_t)(uint16_t)word;
}

static inline int32_t hi_s16(uint32_t word)
{
    return (int16_t)(uint16_t)(word >> 16);
}

/* lo and hi as one word. */
static inline uint32_t pack_s16(int32_t lo, int32_t hi)
{
    return ((uint32_t)lo & 0xFFFFu) | ((uint32_t)hi << 16);
}

/* a + b, wrapping around as the sums of SMLAD do. */
static inline int32_t add_wrapping(int32_t a, int32_t b)
{
    return (int32_t)((uint32_t)a + (uint32_t)b);
}

#if defined(__ARM_FEATURE_DSP)

/* sum + a.lo * b.lo + a.hi * b.hi */
static inline int32_t smlad(uint32_t a, uint32_t b, int32_t sum)
{
    return __smlad((int16x2_t)a, (int16x2_t)b, sum);
}

/* sum + a.lo * b.lo */
static inline int32_t smlabb(uint32_t a, uint32_t b, int32_t sum)
{
    return __smlabb((int32_t)a, (int32_t)b, sum);
}

/* sum + a.hi * b.lo */
static inline int32_t smlatb(uint32_t a, uint32_t b, int32_t sum)
{
    return __smlatb((int32_t)a, (int32_t)b, sum);
}

/* lo = sign-extended byte 0, hi = sign-extended byte 2 */
static inline uint32_t sxtb16(uint32_t word)
{
    return (uint32_t)__sxtb16((int8x4_t)word);
}

/* lo = sign-extended byte 1, hi = sign-extended byte 3; GCC does not fold the rotation by itself */
static inline uint32_t sxtb16_ror8(uint32_t word)
{
    uint32_t halves;

    __asm__("sxtb16 %0, %1, ror #8" : "=r"(halves) : "r"(word));
    return halves;
}

/* high word of a * b + sum * 2^32 + 2^31 (rounded) */
static inline int32_t smmlar(int32_t a, int32_t b, int32_t sum)
{
    int32_t high;

    __asm__("smmlar %0, %1, %2, %3" : "=r"(high) : "r"(a), "r"(b), "r"(sum));
    return high;
}

/* high word of a * b; GCC would take SMULL, which needs one more register */
static inline int32_t smmul(int32_t a, int32_t b)
{
    int32_t high;

    __asm__("smmul %0, %1, %2" : "=r"(high) : "r"(a), "r"(b));
    return high;
}

/* value clamped to -128..127 */
static inline int32_t saturate_s8(int32_t value)
{
    return (int32_t)__builtin_arm_ssat((int)value, 8); /* ACLE's __ssat does not pass -Wsign-conversion */
}

/* lo and hi of sum, each with the half that sxtb16 makes of word added, modulo 2^16 */
static inline uint32_t sxtab16(uint32_t sum, uint32_t word)
{
    return (uint32_t)__sxtab16((int16x2_t)sum, (int8x4_t)word);
}

/* as sxtab16 with sxtb16_ror8 */
static inline uint32_t sxtab16_ror8(uint32_t sum, uint32_t word)
{
    uint32_t halves;

    __asm__("sxtab16 %0, %1, %2, ror #8" : "=r"(halves) : "r"(sum), "r"(word));
    return halves;
}

/* sum + (a * b.lo >> 16) */
static inline int32_t smlawb(int32_t a, uint32_t b, int32_t sum)
{
    return __smlawb(a, (int32_t)b, sum);
}

/* sum + (a * b.hi >> 16) */
static inline int32_t smlawt(int32_t a, uint32_t b, int32_t sum)
{
    return __smlawt(a, (int32_t)b, sum);
}

/* sum + a.lo * b.hi */
static inline int32_t smlabt(uint32_t a, uint32_t b, int32_t sum)
{
    return __smlabt((int32_t)a, (int32_t)b, sum);
}

/* sum + a.hi * b.hi */
static inline int32_t smlatt(uint32_t a, uint32_t b, int32_t sum)
{
    return __smlatt((int32_t)a, (int32_t)b, sum);
}

/* lo = a.lo, hi = b.lo */
static inline uint32_t pack_lo(uint32_t a, uint32_t b)
{
    uint32_t word;

    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(word) : "r"(a), "r"(b));
    return word;
}

/* lo = a.hi, hi = b.hi */
static inline uint32_t pack_hi(uint32_t a, uint32_t b)
{
    uint32_t word;

    __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(word) : "r"(b), "r"(a));
    return word;
}

/* sum - 1 where value is negative, else sum; GCC takes two instructions where the sum is a constant */
static inline int32_t add_sign(int32_t sum, int32_t value)
{
    int32_t result;

    __asm__("add %0, %1, %2, asr #31" : "=r"(result) : "r"(sum), "r"(value));
    return result;
}

/* for each of the four bytes the greater one */
static inline uint32_t max_s8x4(uint32_t a, uint32_t b)
{
    uint32_t greater;

    __asm__("ssub8 %0, %1, %2\n\tsel %0, %1, %2" : "=&r"(greater) : "r"(a), "r"(b));
    return greater;
}

#else /* plain C twins */

static inline int32_t smlabb(uint32_t a, uint32_t b, int32_t sum)
{
    return add_wrapping(sum, lo_s16(a) * lo_s16(b));
}

static inline int32_t smlatb(uint32_t a, uint32_t b, int32_t sum)
{
    return add_wrapping(sum, hi_s16(a) * lo_s16(b));
}

static inline int32_t smlad(uint32_t a, uint32_t b, int32_t sum)
{
    return add_wrapping(smlabb(a, b, sum), hi_s16(a) * hi_s16(b));
}

static inline uint32_t sxtb16(uint32_t word)
{
    return pack_s16((int8_t)(uint8_t)word, (int8_t)(uint8_t)(word >> 16));
}

static inline uint32_t sxtb16_ror8(uint32_t word)
{
    return sxtb16((word >> 8) | (word << 24));
}

static inline int32_t smmlar(int32_t a, int32_t b, int32_t sum)
{
    uint64_t product = (uint64_t)((int64_t)a * b) + 0x80000000u;

    return (int32_t)((uint32_t)(product >> 32) + (uint32_t)sum);
}

static inline int32_t smmul(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b) >> 32);
}

static inline int32_t saturate_s8(int32_t value)
{
    return value < -128 ? -128 : value > 127 ? 127 : value;
}

static inline uint32_t sxtab16(uint32_t sum, uint32_t word)
{
    return pack_s16(lo_s16(sum) + (int8_t)(uint8_t)word, hi_s16(sum) + (int8_t)(uint8_t)(word >> 16));
}

static inline uint32_t sxtab16_ror8(uint32_t sum, uint32_t word)
{
    return sxtab16(sum, (word >> 8) | (word << 24));
}

static inline int32_t smlawb(int32_t a, uint32_t b, int32_t sum)
{
    return add_wrapping(sum, (int32_t)(((int64_t)a * lo_s16(b)) >> 16));
}

static inline int32_t smlawt(int32_t a, uint32_t b, int32_t sum)
{
    return add_wrapping(sum, (int32_t)(((int64_t)a * hi_s16(b)) >> 16));
}

static inline int32_t smlabt(uint32_t a, uint32_t b, int32_t sum)
{
    return add_wrapping(sum, lo_s16(a) * hi_s16(b));
}

static inline int32_t smlatt(uint32_t a, uint32_t b, int32_t sum)
{
    return add_wrapping(sum, hi_s16(a) * hi_s16(b));
}

static inline uint32_t pack_lo(uint32_t a, uint32_t b)
{
    return (a & 0xFFFFu) | (b << 16);
}

static inline uint32_t pack_hi(uint32_t a, uint32_t b)
{
    return (a >> 16) | (b & 0xFFFF0000u);
}

static inline int32_t add_sign(int32_t sum, int32_t value)
{
    return sum + (value >> 31);
}

static inline uint32_t max_s8x4(uint32_t a, uint32_t b)
{
    uint32_t greater = 0;

    for (int32_t shift = 0; shift < 32; shift += 8) {
        uint32_t byte = (int8_t)(uint8_t)(a >> shift) > (int8_t)(uint8_t)(b >> shift) ? a : b;

        greater |= byte & (0xFFu << shift);
    }
    return greater;
}

#endif

#endif
