/* Random numbers of a batch of lanes; see physics/randomness.py. */
#include "random.h"

/* Key of one stream at one step, for every lane. */
void subkeys(int lanes, const uint64_t *keys, const int64_t *steps, uint64_t stream, uint64_t *out)
{
    for (int l = 0; l < lanes; l++) out[l] = mix(mix(keys[l] + GOLDEN * ((uint64_t)steps[l] + 1)) ^ stream);
}

/* (lanes, size) uniform numbers of one stream at one step. */
void uniforms(int lanes, int size, const uint64_t *keys, const int64_t *steps, uint64_t stream, double *out)
{
    for (int l = 0; l < lanes; l++) {
        uint64_t key = mix(mix(keys[l] + GOLDEN * ((uint64_t)steps[l] + 1)) ^ stream);
        for (int i = 0; i < size; i++) out[(int64_t)l * size + i] = unit(mix(key + GOLDEN * (uint64_t)(i + 1)));
    }
}
