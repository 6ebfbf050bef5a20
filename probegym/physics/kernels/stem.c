/* Exact bilinear STEM images and shot noise; see physics/image_formation.py for the equations.
 *
 * Every lane is computed by the same sequence of operations whatever the width of the batch, so that an
 * episode does not depend on how many others run beside it: the tiles of 16 and of 8 lanes are one macro.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "turn.h"

typedef struct {
    int32_t beams, coefficients, pairs, frequencies; /* frequencies: Q = k - k' on the half plane Qx >= 0 */
    int32_t qx_max, qy_max;
    const float *basis;      /* (coefficients, beams) turns per metre */
    const float *weight;     /* (beams) amplitude inside the aperture, normalised to unit current */
    const int16_t *first, *second;      /* (pairs) beams k and k' */
    const int64_t *start;               /* (frequencies + 1) first pair of each Q */
    const float *m_real, *m_imag;       /* (pairs) M_kk', doubled off the origin */
    const int16_t *qx, *qy;             /* (frequencies) */
    float source_x, source_y;           /* 2 pi^2 s^2 / L^2: the damping of a finite source, per Q^2 */
} Tensor;

/* aberrations -> beam amplitudes -> I(Q) for one tile of W lanes */
#define DEFINE_SPECTRUM(W)                                                                                    \
    typedef float vec##W __attribute__((vector_size(4 * W), aligned(4 * W)));                                 \
    static void spectrum_##W(const Tensor *t, const float *coefficients, int lanes, float *re, float *im,     \
                             float *out_re, float *out_im)                                                    \
    {                                                                                                         \
        int nb = t->beams, nc = t->coefficients;                                                              \
        float chi[W];                                                                                         \
        for (int q = 0; q < nb; q++) {                                                                        \
            for (int l = 0; l < W; l++) chi[l] = 0;                                                           \
            for (int c = 0; c < nc; c++) {                                                                    \
                float b = t->basis[(size_t)c * nb + q];                                                       \
                for (int l = 0; l < W; l++) chi[l] += b * coefficients[c * W + l];                            \
            }                                                                                                 \
            float w = t->weight[q];                                                                           \
            for (int l = 0; l < W; l++) {                                                                     \
                float c, s;                                                                                   \
                turn(chi[l], &c, &s);                                                                         \
                re[q * W + l] = w * c;                                                                        \
                im[q * W + l] = -w * s;                                                                       \
            }                                                                                                 \
        }                                                                                                     \
        const vec##W *ar = (const vec##W *)re, *ai = (const vec##W *)im;                                      \
        for (int f = 0; f < t->frequencies; f++) {                                                            \
            vec##W r0 = {0}, i0 = {0}, r1 = {0}, i1 = {0};                                                    \
            int64_t p = t->start[f], end = t->start[f + 1];                                                   \
            for (; p + 1 < end; p += 2) {                                                                     \
                vec##W a = ar[t->first[p]], b = ai[t->first[p]], c = ar[t->second[p]], d = ai[t->second[p]];  \
                float u = t->m_real[p], v = t->m_imag[p];                                                     \
                vec##W x = a * c + b * d, y = b * c - a * d;                                                  \
                r0 += x * u - y * v;                                                                          \
                i0 += x * v + y * u;                                                                          \
                a = ar[t->first[p + 1]], b = ai[t->first[p + 1]];                                             \
                c = ar[t->second[p + 1]], d = ai[t->second[p + 1]];                                           \
                u = t->m_real[p + 1], v = t->m_imag[p + 1];                                                   \
                x = a * c + b * d, y = b * c - a * d;                                                         \
                r1 += x * u - y * v;                                                                          \
                i1 += x * v + y * u;                                                                          \
            }                                                                                                 \
            if (p < end) {                                                                                    \
                vec##W a = ar[t->first[p]], b = ai[t->first[p]], c = ar[t->second[p]], d = ai[t->second[p]];  \
                float u = t->m_real[p], v = t->m_imag[p];                                                     \
                vec##W x = a * c + b * d, y = b * c - a * d;                                                  \
                r0 += x * u - y * v;                                                                          \
                i0 += x * v + y * u;                                                                          \
            }                                                                                                 \
            ((vec##W *)out_re)[f] = r0 + r1;                                                                  \
            ((vec##W *)out_im)[f] = i0 + i1;                                                                  \
        }                                                                                                     \
        (void)lanes;                                                                                          \
    }

DEFINE_SPECTRUM(16)
DEFINE_SPECTRUM(8)

/* I(Q) of one lane -> image, every line at its own probe displacement (in fractions of the cell) */
static void lines(const Tensor *t, const float *spec_re, const float *spec_im, int stride, const float *line_x,
                  const float *line_y, int rows, int cols, const float *col_cos, const float *col_sin,
                  float *scratch, float *image)
{
    int nx = t->qx_max + 1, ny = 2 * t->qy_max + 1, pad = (nx + 15) / 16 * 16;
    float *f_re = scratch, *f_im = f_re + ny * pad, *g_re = f_im + ny * pad, *g_im = g_re + pad;
    memset(scratch, 0, sizeof(float) * 2 * ny * pad);
    for (int f = 0; f < t->frequencies; f++) {
        float damping = expf(-t->source_x * t->qx[f] * t->qx[f] - t->source_y * t->qy[f] * t->qy[f]);
        int at = (t->qy[f] + t->qy_max) * pad + t->qx[f];
        f_re[at] = damping * spec_re[(size_t)f * stride];
        f_im[at] = damping * spec_im[(size_t)f * stride];
    }
    for (int row = 0; row < rows; row++) {
        float cy[ny], sy[ny], cx[nx], sx[nx];
        for (int k = 0; k < ny; k++) turn((t->qy_max - k) * line_y[row], &cy[k], &sy[k]);
        for (int x = 0; x < nx; x++) turn(-x * line_x[row], &cx[x], &sx[x]);
        memset(g_re, 0, sizeof(float) * 2 * pad);
        for (int k = 0; k < ny; k++) {
            const float *fr = f_re + k * pad, *fi = f_im + k * pad;
#pragma GCC ivdep
            for (int x = 0; x < pad; x++) {
                g_re[x] += fr[x] * cy[k] - fi[x] * sy[k];
                g_im[x] += fr[x] * sy[k] + fi[x] * cy[k];
            }
        }
        float *out = image + (size_t)row * cols;
        memset(out, 0, sizeof(float) * cols);
        for (int x = 0; x < nx; x++) {
            float a = g_re[x] * cx[x] - g_im[x] * sx[x], b = g_re[x] * sx[x] + g_im[x] * cx[x];
            const float *cc = col_cos + (size_t)x * cols, *cs = col_sin + (size_t)x * cols;
#pragma GCC ivdep
            for (int i = 0; i < cols; i++) out[i] += a * cc[i] + b * cs[i]; /* Re[(a + ib) exp(-2 pi i x u)] */
        }
    }
}

/* coefficients (lanes, nc); line_x, line_y (lanes, rows); images (lanes, rows, cols). Returns 0, or 1 without memory. */
int stem_images(const Tensor *t, int lanes, const float *coefficients, const float *line_x, const float *line_y,
                int rows, int cols, const float *col_cos, const float *col_sin, float *images)
{
    int nb = t->beams, nf = t->frequencies, nc = t->coefficients;
    int pad = (t->qx_max + 16) / 16 * 16;
    size_t floats = (size_t)16 * (2 * nb + 2 * nf + nc) + (size_t)(2 * t->qy_max + 2) * 2 * pad + 64;
    float *buffer = aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64);
    if (!buffer) return 1;
    float *re = buffer, *im = re + 16 * nb, *out_re = im + 16 * nb, *out_im = out_re + 16 * nf;
    float *packed = out_im + 16 * nf, *scratch = packed + 16 * nc;
    for (int at = 0; at < lanes;) {
        int width = lanes - at > 8 ? 16 : 8, used = lanes - at < width ? lanes - at : width;
        for (int c = 0; c < nc; c++)
            for (int l = 0; l < width; l++)
                packed[c * width + l] = coefficients[(size_t)(at + (l < used ? l : 0)) * nc + c];
        if (width == 16) spectrum_16(t, packed, used, re, im, out_re, out_im);
        else spectrum_8(t, packed, used, re, im, out_re, out_im);
        for (int l = 0; l < used; l++)
            lines(t, out_re + l, out_im + l, width, line_x + (size_t)(at + l) * rows, line_y + (size_t)(at + l) * rows,
                  rows, cols, col_cos, col_sin, scratch, images + (size_t)(at + l) * rows * cols);
        at += used;
    }
    free(buffer);
    return 0;
}

/* ---- random numbers: the counter-based generator of physics/randomness.py (SplitMix64 finaliser) ---- */

static inline uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

#define GOLDEN 0x9e3779b97f4a7c15ull

static inline double unit(uint64_t bits) { return ((bits >> 11) + 0.5) * 0x1.0p-53; }

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
