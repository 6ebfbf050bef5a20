/* Exact bilinear STEM images; see physics/image_formation.py for the equations.
 *
 * Every lane is computed by the same sequence of operations whatever the width of the batch, so that an
 * episode does not depend on how many others run beside it.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "turn.h"

#define TILE 16 /* lanes that share one pass over the pairs */
#define FEW 4   /* up to so many lanes one by one are faster than a tile */
#define STEP 8  /* rows of M are padded to a multiple of it */

typedef struct { int32_t start, length, lowest; } Column; /* beams of equal kx: first index, count, ky of the first */

typedef struct {
    int32_t beams, coefficients, columns, frequencies; /* frequencies: Q = k - k' on the half plane Qx >= 0 */
    int32_t qx_max, qy_max;
    const float *basis;      /* (coefficients, beams) turns per metre */
    const float *weight;     /* (beams) amplitude inside the aperture, normalised to unit current */
    const int16_t *first, *second;      /* (pairs) beams k and k' */
    const int64_t *start;               /* (frequencies + 1) first pair of each Q */
    const float *m_real, *m_imag;       /* (pairs) M_kk', doubled off the origin */
    const int16_t *qx, *qy;             /* (frequencies) */
    const Column *column;               /* (columns), kx ascending without gaps */
    const float *row_real, *row_imag;   /* the same M as rows, see spectrum_lane; or NULL */
    float source_x, source_y;           /* 2 pi^2 s^2 / L^2: the damping of a finite source, per Q^2 */
} Tensor;

/* Beam amplitudes of W lanes, lanes fastest. */
static inline __attribute__((always_inline)) void amplitudes(const Tensor *t, const float *coefficients, int width, float *re, float *im)
{
    for (int q = 0; q < t->beams; q++) {
        float chi[TILE];
        for (int l = 0; l < width; l++) chi[l] = 0;
        for (int c = 0; c < t->coefficients; c++) {
            float b = t->basis[(size_t)c * t->beams + q];
            for (int l = 0; l < width; l++) chi[l] += b * coefficients[c * width + l];
        }
        for (int l = 0; l < width; l++) {
            float c, s;
            turn(chi[l], &c, &s);
            re[q * width + l] = t->weight[q] * c;
            im[q * width + l] = -t->weight[q] * s;
        }
    }
}

/* I(Q) = sum over pairs of A_k A*_k' M, for a tile of lanes at once. */
typedef float vec __attribute__((vector_size(4 * TILE), aligned(4 * TILE)));

static void spectrum_tile(const Tensor *t, const float *re, const float *im, float *out_re, float *out_im)
{
    const vec *ar = (const vec *)re, *ai = (const vec *)im;
    for (int f = 0; f < t->frequencies; f++) {
        vec real = {0}, imag = {0};
        for (int64_t p = t->start[f]; p < t->start[f + 1]; p++) {
            vec a = ar[t->first[p]], b = ai[t->first[p]], c = ar[t->second[p]], d = ai[t->second[p]];
            vec x = a * c + b * d, y = b * c - a * d;
            real += x * t->m_real[p], imag += x * t->m_imag[p];
            real -= y * t->m_imag[p], imag += y * t->m_real[p];
        }
        ((vec *)out_re)[f] = real;
        ((vec *)out_im)[f] = imag;
    }
}

/* The same sums in the same order for one lane, vectorised over k' along a column of beams: rows of M, padded to STEP,
 * in the order (Qx, k, k'). The sums of one Qx lie side by side, in the order of -Qy. */
static void spectrum_lane(const Tensor *t, const float *re, const float *im, float *scratch, float *out_re, float *out_im)
{
    int width = 2 * t->qy_max + 1 + 2 * STEP, f = 0;
    float *sum_re = scratch, *sum_im = scratch + width;
    const float *m_re = t->row_real, *m_im = t->row_imag;
    for (int qx = 0; qx <= t->qx_max; qx++) {
        memset(scratch, 0, sizeof(float) * 2 * width);
        for (int n = qx; n < t->columns; n++) {
            const Column *from = t->column + n, *to = t->column + n - qx;
            int padded = (to->length + STEP - 1) / STEP * STEP;
            const float *c = re + to->start, *d = im + to->start;
            for (int j = 0; j < from->length; j++, m_re += padded, m_im += padded) {
                float a = re[from->start + j], b = im[from->start + j];
                int at = t->qy_max - (from->lowest + j) + to->lowest;
                for (int k0 = 0; k0 < padded; k0 += STEP)
#pragma GCC ivdep
                    for (int k = k0; k < k0 + STEP; k++) {
                        float x = a * c[k] + b * d[k], y = b * c[k] - a * d[k], real = sum_re[at + k], imag = sum_im[at + k];
                        real += x * m_re[k], imag += x * m_im[k];
                        real -= y * m_im[k], imag += y * m_re[k];
                        sum_re[at + k] = real, sum_im[at + k] = imag;
                    }
            }
        }
        for (; f < t->frequencies && t->qx[f] == qx; f++) {
            out_re[f] = sum_re[t->qy_max - t->qy[f]];
            out_im[f] = sum_im[t->qy_max - t->qy[f]];
        }
    }
}

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
    int nb = t->beams + STEP, nf = t->frequencies, nc = t->coefficients;
    size_t lines_need = (size_t)(2 * t->qy_max + 2) * 2 * ((t->qx_max + 16) / 16 * 16);
    size_t floats = (size_t)TILE * (2 * nb + 2 * nf + nc) + lines_need + 4 * (t->qy_max + STEP) + 64;
    float *buffer = aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64);
    if (!buffer) return 1;
    float *re = buffer, *im = re + TILE * nb, *out_re = im + TILE * nb, *out_im = out_re + TILE * nf;
    float *packed = out_im + TILE * nf, *scratch = packed + TILE * nc;
    memset(re, 0, sizeof(float) * 2 * TILE * nb); /* rows of M reach past the last beam, with zeros */
    for (int at = 0; at < lanes;) {
        int width = lanes - at > FEW || !t->row_real ? TILE : 1, used = width == 1 || lanes - at > TILE ? width : lanes - at;
        for (int c = 0; c < nc; c++)
            for (int l = 0; l < width; l++)
                packed[c * width + l] = coefficients[(size_t)(at + (l < used ? l : 0)) * nc + c];
        if (width == TILE) {
            amplitudes(t, packed, TILE, re, im);
            spectrum_tile(t, re, im, out_re, out_im);
        } else {
            amplitudes(t, packed, 1, re, im);
            memset(re + t->beams, 0, sizeof(float) * STEP);
            memset(im + t->beams, 0, sizeof(float) * STEP);
            spectrum_lane(t, re, im, scratch, out_re, out_im);
        }
        for (int l = 0; l < used; l++)
            lines(t, out_re + l, out_im + l, width, line_x + (size_t)(at + l) * rows, line_y + (size_t)(at + l) * rows,
                  rows, cols, col_cos, col_sin, scratch, images + (size_t)(at + l) * rows * cols);
        at += used;
    }
    free(buffer);
    return 0;
}
