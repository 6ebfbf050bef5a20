/* The counter-based generator: SplitMix64's finaliser (Steele, Lea & Flood 2014, 10.1145/2660193.2660195). */
#include <stdint.h>

#define GOLDEN 0x9e3779b97f4a7c15ull

static inline uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* a double in the open interval (0, 1) */
static inline double unit(uint64_t bits) { return ((bits >> 11) + 0.5) * 0x1.0p-53; }
