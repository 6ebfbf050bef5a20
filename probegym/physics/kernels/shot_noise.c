/* Exact Poisson counts from the counter-based generator, a block of pixels at a time. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "random.h"

static inline double uniform(uint64_t *state)
{
    *state += GOLDEN;
    return unit(mix(*state));
}

/* Transformed rejection (PTRS): Hoermann, Insurance: Mathematics and Economics 12, 39 (1993).
 * The first draw of a block is tried for all its pixels at once, the few it rejects go on one by one. */
typedef struct { double a, b, v_r; } Hat;

static inline Hat hat(double mean)
{
    Hat h;
    h.b = 0.931 + 2.53 * sqrt(mean);
    h.a = -0.059 + 0.02483 * h.b;
    h.v_r = 0.9277 - 3.6224 / (h.b - 2);
    return h;
}

static double log_factorial(double k)
{
    static const double small[10] = {0, 0, 0.69314718055994531, 1.7917594692280550, 3.1780538303479458, 4.7874917427820460,
                                     6.5792512120101010, 8.5251613610654143, 10.604602902745250, 12.801827480081469};
    if (k < 10) return small[(int)k];
    double r = 1 / k; /* Stirling's series */
    return (k + 0.5) * log(k) - k + 0.91893853320467274 + r * (1.0 / 12 - r * r * (1.0 / 360 - r * r / 1260));
}

static double poisson_rest(double mean, double u, double v, uint64_t state)
{
    Hat h = hat(mean);
    double log_mean = log(mean), inverse_alpha = 1.1239 + 1.1328 / (h.b - 3.4);
    for (;;) {
        double us = 0.5 - fabs(u), k = floor((2 * h.a / us + h.b) * u + mean + 0.43);
        if (us >= 0.07 && v <= h.v_r) return k;
        if (k >= 0 && (us >= 0.013 || v <= us) &&
            log(v * inverse_alpha / (h.a / (us * us) + h.b)) <= k * log_mean - mean - log_factorial(k)) return k;
        u = uniform(&state) - 0.5;
        v = uniform(&state);
    }
}

#define BLOCK 16
#define INVERSION_LIMIT 30.0 /* above this mean PTRS is the faster one */

typedef double doubles __attribute__((vector_size(64)));
typedef int64_t longs __attribute__((vector_size(64)));

static inline int any(longs a) { return (a[0] | a[1] | a[2] | a[3] | a[4] | a[5] | a[6] | a[7]) != 0; }

/* Inversion for eight means: subtract the probabilities of 0, 1, 2 ... from u until it is used up. */
static inline longs invert(doubles mean, doubles rest, doubles term)
{
    longs active = mean > 0 & mean < INVERSION_LIMIT, count = {0};
    for (int k = 1; k < 128 && any(active); k += 4)
        for (int j = k; j < k + 4; j++) {
            active &= rest > term;
            rest -= (doubles)((longs)term & active);
            count -= active; /* a true lane is -1 */
            term *= mean * (1.0 / j);
        }
    return count;
}

/* Poisson counts of one block of means; state: one random state a pixel. Blocks never mix lanes. */
static void poisson_block(const double *mean, const uint64_t *state, float *counts)
{
    double u[BLOCK], v[BLOCK] __attribute__((aligned(64))), term[BLOCK], found[BLOCK];
    int small = 0, large = 0, accepted[BLOCK];
    for (int i = 0; i < BLOCK; i++) {
        u[i] = unit(mix(state[i] + GOLDEN));
        small |= mean[i] < INVERSION_LIMIT;
        large |= mean[i] >= INVERSION_LIMIT;
        counts[i] = 0;
    }
    if (small) {
        for (int i = 0; i < BLOCK; i++) term[i] = exp(-mean[i]);
        for (int half = 0; half < BLOCK; half += 8) {
            doubles m, r, t;
            memcpy(&m, mean + half, sizeof m), memcpy(&r, u + half, sizeof r), memcpy(&t, term + half, sizeof t);
            longs count = invert(m, r, t);
            for (int i = 0; i < 8; i++) counts[half + i] = (float)count[i];
        }
    }
    if (!large) return;
    for (int i = 0; i < BLOCK; i++) v[i] = unit(mix(state[i] + 2 * GOLDEN));
    for (int i = 0; i < BLOCK; i++) {
        double m = mean[i] >= INVERSION_LIMIT ? mean[i] : INVERSION_LIMIT;
        Hat h = hat(m);
        double w = u[i] - 0.5, us = 0.5 - fabs(w), k = floor((2 * h.a / us + h.b) * w + m + 0.43), z = k > 10 ? k : 10, r = 1 / z;
        double bound = k * log(m) - m - ((z + 0.5) * log(z) - z + 0.91893853320467274 + r * (1.0 / 12 - r * r * (1.0 / 360 - r * r / 1260)));
        double height = log(v[i] * (1.1239 + 1.1328 / (h.b - 3.4)) / (h.a / (us * us) + h.b));
        found[i] = k;
        accepted[i] = (us >= 0.07 & v[i] <= h.v_r) | (k >= 10 & (us >= 0.013 | v[i] <= us) & height <= bound);
    }
    for (int i = 0; i < BLOCK; i++)
        if (mean[i] >= INVERSION_LIMIT)
            counts[i] = (float)(accepted[i] ? found[i] : poisson_rest(mean[i], u[i] - 0.5, v[i], state[i] + 2 * GOLDEN));
}

/* Poisson counts with mean scale * intensity (negatives from rounding count as zero); keys: one per lane. */
void shot_noise(int lanes, int64_t pixels, const uint64_t *keys, const float *scale, const float *intensity, float *counts)
{
    double mean[BLOCK];
    uint64_t state[BLOCK];
    float block[BLOCK];
    for (int l = 0; l < lanes; l++) {
        const float *in = intensity + l * pixels;
        for (int64_t at = 0; at < pixels; at += BLOCK) {
            int used = pixels - at < BLOCK ? (int)(pixels - at) : BLOCK;
            for (int i = 0; i < BLOCK; i++) {
                float value = in[at + (i < used ? i : 0)];
                mean[i] = value > 0 ? (double)scale[l] * value : 0;
                state[i] = mix(keys[l] + (uint64_t)(at + i + 1) * 0xd1342543de82ef95ull);
            }
            poisson_block(mean, state, block);
            memcpy(counts + l * pixels + at, block, sizeof(float) * used);
        }
    }
}
