/* Ronchigrams by multislice on a square grid; see physics/ronchigram.py for the equations.
 *
 * One lane at a time, vectorised over the columns of a transform: a frame does not depend on the batch it is in.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "turn.h"

typedef struct {
    int32_t gpts;             /* a power of two */
    int32_t beams, coefficients, columns, pitch, slices, half, bin; /* pitch: columns rounded up to 16 */
    const float *basis;       /* (coefficients, beams) turns per metre */
    const float *weight;      /* (beams) */
    const int32_t *target;    /* (beams) place on the (gpts, pitch) grid: ky * pitch + column */
    const int32_t *column_kx; /* (columns) */
    const float *propagator;  /* (gpts, gpts, 2), symmetric */
    const float *band;        /* (2 half, 2 half) squared band limit of the outgoing wave, rows kx */
} Optics;

typedef struct { float *re, *im; } Wave;

/* Complex transform over the rows of an (n, m) array, every column by itself: Stockham, radix 4 and a last radix 2.
 * sign: -1 forward, +1 inverse, unnormalised. The result is in *x; *y is scratch; both are swapped as needed. */
static void transform(Wave *x, Wave *y, int n, int m, int sign)
{
    int left = n, stride = 1;
    while (left > 1) {
        int radix = left % 4 == 0 ? 4 : 2, part = left / radix;
        for (int p = 0; p < part; p++) {
            float c[4], s[4];
            for (int k = 1; k < radix; k++) {
                turn((float)(k * p) / left, &c[k], &s[k]);
                s[k] *= sign;
            }
            for (int q = 0; q < stride; q++) {
                const float *ar[4], *ai[4];
                float *br[4], *bi[4];
                for (int k = 0; k < radix; k++) {
                    size_t from = (size_t)(q + stride * (p + k * part)) * m, to = (size_t)(q + stride * (radix * p + k)) * m;
                    ar[k] = x->re + from, ai[k] = x->im + from, br[k] = y->re + to, bi[k] = y->im + to;
                }
                if (radix == 4) {
                    const float *a0 = ar[0], *a1 = ar[1], *a2 = ar[2], *a3 = ar[3], *b0 = ai[0], *b1 = ai[1], *b2 = ai[2], *b3 = ai[3];
                    float *restrict r0 = br[0], *restrict r1 = br[1], *restrict r2 = br[2], *restrict r3 = br[3];
                    float *restrict i0 = bi[0], *restrict i1 = bi[1], *restrict i2 = bi[2], *restrict i3 = bi[3];
                    float c1 = c[1], c2 = c[2], c3 = c[3], s1 = s[1], s2 = s[2], s3 = s[3], g = sign;
#pragma GCC ivdep
                    for (int j = 0; j < m; j++) {
                        float er = a0[j] + a2[j], ei = b0[j] + b2[j], dr = a0[j] - a2[j], di = b0[j] - b2[j];
                        float fr = a1[j] + a3[j], fi = b1[j] + b3[j], hr = -g * (b1[j] - b3[j]), hi = g * (a1[j] - a3[j]);
                        float ur = dr + hr, ui = di + hi, vr = er - fr, vi = ei - fi, wr = dr - hr, wi = di - hi;
                        r0[j] = er + fr, i0[j] = ei + fi;
                        r1[j] = ur * c1 - ui * s1, i1[j] = ur * s1 + ui * c1;
                        r2[j] = vr * c2 - vi * s2, i2[j] = vr * s2 + vi * c2;
                        r3[j] = wr * c3 - wi * s3, i3[j] = wr * s3 + wi * c3;
                    }
                } else {
                    const float *a0 = ar[0], *a1 = ar[1], *b0 = ai[0], *b1 = ai[1];
                    float *restrict r0 = br[0], *restrict r1 = br[1], *restrict i0 = bi[0], *restrict i1 = bi[1];
                    float c1 = c[1], s1 = s[1];
#pragma GCC ivdep
                    for (int j = 0; j < m; j++) {
                        float dr = a0[j] - a1[j], di = b0[j] - b1[j];
                        r0[j] = a0[j] + a1[j], i0[j] = b0[j] + b1[j];
                        r1[j] = dr * c1 - di * s1, i1[j] = dr * s1 + di * c1;
                    }
                }
            }
        }
        Wave swap = *x;
        *x = *y, *y = swap;
        left /= radix, stride *= radix;
    }
}

/* (rows, columns) -> (columns, rows), in blocks that stay in the first cache */
static void transpose(const float *in, float *out, int rows, int columns, int in_pitch, int out_pitch)
{
    for (int r0 = 0; r0 < rows; r0 += 16)
        for (int c0 = 0; c0 < columns; c0 += 16)
            for (int c = c0; c < c0 + 16 && c < columns; c++)
                for (int r = r0; r < r0 + 16 && r < rows; r++) out[(size_t)c * out_pitch + r] = in[(size_t)r * in_pitch + c];
}

/* Column c of (rows, columns) -> row place[c] */
static void gather(const float *in, int in_pitch, int columns, int rows, const int32_t *place, float *out, int out_pitch)
{
    for (int c0 = 0; c0 < columns; c0 += 16)
        for (int r0 = 0; r0 < rows; r0 += 16)
            for (int c = c0; c < c0 + 16 && c < columns; c++)
                for (int r = r0; r < r0 + 16; r++) out[(size_t)place[c] * out_pitch + r] = in[(size_t)r * in_pitch + c];
}

/* Beam amplitudes on the (ky, column) grid. */
static void pupil(const Optics *o, const float *coefficients, float *chi, Wave x)
{
    memset(chi, 0, sizeof(float) * o->beams);
    for (int k = 0; k < o->coefficients; k++) {
        const float *b = o->basis + (size_t)k * o->beams;
        float a = coefficients[k];
        if (a != 0) for (int q = 0; q < o->beams; q++) chi[q] += a * b[q];
    }
    memset(x.re, 0, sizeof(float) * o->gpts * o->pitch);
    memset(x.im, 0, sizeof(float) * o->gpts * o->pitch);
    float *c = chi + o->beams, *s = c + o->beams;
    for (int q = 0; q < o->beams; q++) turn(chi[q], &c[q], &s[q]);
    for (int q = 0; q < o->beams; q++) {
        x.re[o->target[q]] = o->weight[q] * c[q];
        x.im[o->target[q]] = -o->weight[q] * s[q];
    }
}

static void multiply(Wave x, const float *factor, int n, int pitch)
{
    for (int r = 0; r < n; r++) {
        float *re = x.re + (size_t)r * pitch, *im = x.im + (size_t)r * pitch;
        const float *f = factor + (size_t)2 * n * r;
#pragma GCC ivdep
        for (int i = 0; i < n; i++) {
            float product = re[i] * f[2 * i] - im[i] * f[2 * i + 1];
            im[i] = re[i] * f[2 * i + 1] + im[i] * f[2 * i];
            re[i] = product;
        }
    }
}

static void flip(Wave *x, Wave *y, int n, int pitch)
{
    transpose(x->re, y->re, n, n, pitch, pitch);
    transpose(x->im, y->im, n, n, pitch, pitch);
    Wave swap = *x;
    *x = *y, *y = swap;
}

/* coefficients (lanes, nc); slices: one (slices, gpts, gpts, 2) transmission a lane; frames (lanes, pixels, pixels).
 * Returns 0, or 1 without memory. */
int ronchigrams(const Optics *o, int lanes, const float *coefficients, const float *const *slices, float *frames)
{
    int n = o->gpts, m = o->pitch, w = 2 * o->half, pixels = w / o->bin;
    int camera = (w + 15) / 16 * 16, pitch = n + 16; /* rows a power of two apart would all fall into one cache set */
    size_t full = (size_t)n * pitch + 16 * 5;
    float scale = 1.0f / ((float)n * n), *buffer = aligned_alloc(64, sizeof(float) * ((4 * full + 3 * o->beams + 63) / 16 * 16));
    if (!buffer) return 1;
    for (int l = 0; l < lanes; l++) {
        Wave x = {buffer, buffer + full}, y = {buffer + 2 * full, buffer + 3 * full};
        pupil(o, coefficients + (size_t)l * o->coefficients, buffer + 4 * full, x);
        transform(&x, &y, n, m, 1); /* (y, column) */
        memset(y.re, 0, sizeof(float) * full);
        memset(y.im, 0, sizeof(float) * full);
        gather(x.re, m, o->columns, n, o->column_kx, y.re, pitch); /* -> (kx, y), zero outside the aperture */
        gather(x.im, m, o->columns, n, o->column_kx, y.im, pitch);
        Wave swap = x;
        x = y, y = swap;
        transform(&x, &y, n, pitch, 1); /* (x, y) */
        for (int k = 0; k < o->slices; k++) {
            multiply(x, slices[l] + (size_t)2 * n * n * k, n, pitch);
            if (k == o->slices - 1) break;
            transform(&x, &y, n, pitch, -1);
            flip(&x, &y, n, pitch);
            transform(&x, &y, n, pitch, -1);
            multiply(x, o->propagator, n, pitch); /* carries 1 / n^2 */
            transform(&x, &y, n, pitch, 1);
            flip(&x, &y, n, pitch);
            transform(&x, &y, n, pitch, 1);
        }
        transform(&x, &y, n, pitch, -1); /* (kx, y); keep the rows of the camera */
        memset(y.re, 0, sizeof(float) * n * camera);
        memset(y.im, 0, sizeof(float) * n * camera);
        for (int side = 0; side < 2; side++) { /* kx = -half ... -1, then 0 ... half - 1 */
            size_t from = side ? 0 : (size_t)(n - o->half) * pitch, to = side ? o->half : 0;
            transpose(x.re + from, y.re + to, o->half, n, pitch, camera);
            transpose(x.im + from, y.im + to, o->half, n, pitch, camera);
        }
        swap = x, x = y, y = swap;
        transform(&x, &y, n, camera, -1); /* (ky, kx) */
        float *frame = frames + (size_t)l * pixels * pixels;
        memset(frame, 0, sizeof(float) * pixels * pixels);
        for (int j = 0; j < w; j++) {
            size_t row = (size_t)((j - o->half + n) % n) * camera;
            for (int i = 0; i < w; i++) {
                float re = x.re[row + i] * scale, im = x.im[row + i] * scale;
                frame[(j / o->bin) * pixels + i / o->bin] += (re * re + im * im) * o->band[(size_t)i * w + j];
            }
        }
    }
    free(buffer);
    return 0;
}
