/* Exact bilinear STEM images and shot noise; see physics/image_formation.py for the equations.
 *
 * Every lane is computed by the same sequence of operations whatever the width of the batch, so that an
 * episode does not depend on how many others run beside it: the tiles of 16 and of 8 lanes are one macro.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* cos and sin of 2 pi t: half-angle Taylor series (|pi t| <= pi/2, error < 3e-7), free of calls so that it vectorises */
static inline __attribute__((always_inline)) void turn(float t, float *c, float *s)
{
    float x = 3.14159265358979f * (t - rintf(t)), y = x * x;
    float sine = x * (1 + y * (-1.6666667e-1f + y * (8.3333333e-3f + y * (-1.9841270e-4f + y * (2.7557319e-6f - y * 2.5052108e-8f)))));
    float cosine = 1 + y * (-0.5f + y * (4.1666667e-2f + y * (-1.3888889e-3f + y * (2.4801587e-5f + y * (-2.7557319e-7f + y * 2.0876757e-9f)))));
    *c = 1 - 2 * sine * sine;
    *s = 2 * sine * cosine;
}

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
        memset(g_re, 0, sizeof(float) * 2 * pad);
        for (int k = 0; k < ny; k++) {
            float c, s;
            turn((t->qy_max - k) * line_y[row], &c, &s);
            const float *fr = f_re + k * pad, *fi = f_im + k * pad;
            for (int x = 0; x < pad; x++) {
                g_re[x] += fr[x] * c - fi[x] * s;
                g_im[x] += fr[x] * s + fi[x] * c;
            }
        }
        float *out = image + (size_t)row * cols;
        memset(out, 0, sizeof(float) * cols);
        for (int x = 0; x < nx; x++) {
            float c, s;
            turn(-x * line_x[row], &c, &s);
            float a = g_re[x] * c - g_im[x] * s, b = g_re[x] * s + g_im[x] * c;
            const float *cc = col_cos + (size_t)x * cols, *cs = col_sin + (size_t)x * cols;
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

static inline double uniform(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15ull;
    return ((mix(*state) >> 11) + 0.5) * 0x1.0p-53;
}

/* Transformed rejection (PTRS): Hoermann, Insurance: Mathematics and Economics 12, 39 (1993). */
static double poisson_large(double mean, uint64_t *state)
{
    double b = 0.931 + 2.53 * sqrt(mean), a = -0.059 + 0.02483 * b;
    double inverse_alpha = 1.1239 + 1.1328 / (b - 3.4), v_r = 0.9277 - 3.6224 / (b - 2), log_mean = log(mean);
    for (;;) {
        double u = uniform(state) - 0.5, v = uniform(state), us = 0.5 - fabs(u);
        double k = floor((2 * a / us + b) * u + mean + 0.43);
        if (us >= 0.07 && v <= v_r) return k;
        if (k < 0 || (us < 0.013 && v > us)) continue;
        if (log(v) + log(inverse_alpha) - log(a / (us * us) + b) <= k * log_mean - mean - lgamma(k + 1)) return k;
    }
}

/* Poisson counts with mean scale * intensity (negatives from rounding count as zero); keys: one per lane. */
void shot_noise(int lanes, int64_t pixels, const uint64_t *keys, const float *scale, const float *intensity, float *counts)
{
    for (int l = 0; l < lanes; l++) {
        for (int64_t i = 0; i < pixels; i++) {
            double mean = (double)scale[l] * intensity[l * pixels + i];
            uint64_t state = mix(keys[l] + (uint64_t)(i + 1) * 0xd1342543de82ef95ull);
            double count = 0;
            if (mean >= 12) count = poisson_large(mean, &state);
            else if (mean > 0) {
                double u = uniform(&state), term = exp(-mean);
                while (u > term && count < 200) { u -= term; count += 1; term *= mean / count; }
            }
            counts[l * pixels + i] = (float)count;
        }
    }
}

/* ---- Ronchigram helpers ---- */

/* Beam amplitudes scattered onto a (columns, gpts) complex array whose columns are the kx of the disc. */
void pupil_columns(int lanes, int beams, int coefficients, const float *basis, const float *weight,
                   const int32_t *target, int64_t cells, const float *c, float *out)
{
    float *chi = malloc(sizeof(float) * 3 * beams), *re = chi + beams, *im = re + beams;
    if (!chi) { memset(out, 0, sizeof(float) * 2 * cells * lanes); return; }
    for (int l = 0; l < lanes; l++) {
        memset(chi, 0, sizeof(float) * beams);
        for (int k = 0; k < coefficients; k++) {
            float a = c[(size_t)l * coefficients + k];
            const float *b = basis + (size_t)k * beams;
            if (a != 0) for (int q = 0; q < beams; q++) chi[q] += a * b[q];
        }
        for (int q = 0; q < beams; q++) {
            float x, y;
            turn(chi[q], &x, &y);
            re[q] = weight[q] * x;
            im[q] = -weight[q] * y;
        }
        float *o = out + (size_t)l * 2 * cells;
        memset(o, 0, sizeof(float) * 2 * cells);
        for (int q = 0; q < beams; q++) { o[2 * target[q]] = re[q]; o[2 * target[q] + 1] = im[q]; }
    }
    free(chi);
}
