/* Images of a graphene sheet as sums of round atom profiles; see physics/atom_images.py. SI units. */
#include <stdlib.h>
#include <string.h>

#include "graphene.h"

#define WIDEST 256
#define BLOCK 8
#define WAVES 64
#define CLUSTER_ATOMS 24 /* carbon atoms that a cluster of contamination looks like */

typedef struct { float x, y, sign; int species; } Atom;

static void note(Atom *list, int *n, Point p, double x, double y, float sign, int species)
{
    list[(*n)++] = (Atom){(float)((p.x - x) * 1e10), (float)((p.y - y) * 1e10), sign, species};
}

/* What differs from the perfect lattice, seen from (x, y): carbon taken out, silicon and contamination put in. */
static int differences(const Frame *f, double x, double y, int silicons, const Site *silicon, const double *seat, int vacancies, const Site *vacancy,
                       int clusters, const Cluster *cluster, Atom *list)
{
    int n = 0;
    for (int k = 0; k < vacancies; k++)
        if (vacancy[k].there) note(list, &n, place(f, vacancy + k), x, y, -1, 0);
    for (int k = 0; k < silicons; k++)
        if (silicon[k].there) {
            note(list, &n, place(f, silicon + k), x, y, -1, 0);
            note(list, &n, (Point){seat[2 * k], seat[2 * k + 1]}, x, y, 1, 1);
        }
    for (int k = 0; k < clusters; k++) {
        const Cluster *c = cluster + k;
        for (int a = 0; a < CLUSTER_ATOMS && c->radius > 0; a++) { /* a sunflower, turned by the cluster's place */
            double far = c->radius * sqrt((a + 0.5) / CLUSTER_ATOMS), angle = 2.399963229728653 * a + 1e11 * c->x;
            note(list, &n, (Point){c->x + far * cos(angle), c->y + far * sin(angle)}, x, y, 1, 0);
        }
    }
    return n;
}

static inline float turned(double cycles) { return (float)(2 * M_PI * (cycles - floor(cycles + 0.5))); }

/* The perfect lattice along one row that starts at (x, y): mean + Re sum C exp(2 pi i (h f1 + k f2)). */
static void lattice_row(const Frame *f, double x, double y, int columns, int waves, const int32_t *hk, const float *coefficient, float mean,
                        float cosine[][WIDEST], float sine[][WIDEST], float *line)
{
    double dx = x - f->x, dy = y - f->y, u = f->cosine * dx + f->sine * dy, v = f->cosine * dy - f->sine * dx;
    double f2 = v / (LATTICE * 0.8660254037844386), f1 = u / LATTICE - 0.5 * f2;
    float real[WAVES], imaginary[WAVES], phase[WAVES];
    for (int w = 0; w < waves; w++) phase[w] = turned(hk[2 * w] * f1 + hk[2 * w + 1] * f2);
    for (int w = 0; w < waves; w++) {
        float a = cosf(phase[w]), b = sinf(phase[w]);
        real[w] = coefficient[2 * w] * a - coefficient[2 * w + 1] * b, imaginary[w] = coefficient[2 * w] * b + coefficient[2 * w + 1] * a;
    }
    for (int c = 0; c < columns + BLOCK; c++) line[c] = mean;
    for (int w = 0; w < waves; w++)
        for (int c = 0; c < columns; c++) line[c] += real[w] * cosine[w][c] - imaginary[w] * sine[w][c];
}

/* Shares of the beam that reach the detector, (lanes, rows, columns).
 *
 * profiles: (states, 2, bins + 2) of carbon and silicon at equal steps of the squared distance up to reach^2 (Angstrom^2), then zeros.
 * hk: (waves, 2) of half the plane; coefficients: (states, waves, 2) of the perfect lattice; mean: (states). start: (lanes, rows, 2) m,
 * the first pixel of each row. pixel: m. Returns 1 without memory.
 */
int atom_images(int lanes, int rows, int columns, double pixel, const double *frame, int silicons, const int32_t *silicon, const double *seat,
                int vacancies, const int32_t *vacancy, int clusters, const double *cluster, int bins, double reach, const float *profiles,
                int waves, const int32_t *hk, const float *coefficients, const float *mean, const int32_t *optics, const double *start, float *out)
{
    static __thread float cosine[WAVES][WIDEST] __attribute__((aligned(64))), sine[WAVES][WIDEST] __attribute__((aligned(64)));
    Atom *list = malloc(sizeof(Atom) * (vacancies + 2 * silicons + CLUSTER_ATOMS * clusters + 1));
    if (!list) return 1;
    float inverse = (float)(bins / (reach * reach)), step = (float)(pixel * 1e10), limit = (float)reach;
    for (int l = 0; l < lanes; l++) {
        const double *first = start + (size_t)l * rows * 2;
        const Frame *f = (const Frame *)frame + l;
        const float *table = profiles + (size_t)optics[l] * 2 * (bins + 2);
        int n = differences(f, first[0], first[1], silicons, (const Site *)silicon + (size_t)l * silicons, seat + 2 * (size_t)l * silicons, vacancies,
                            (const Site *)vacancy + (size_t)l * vacancies, clusters, (const Cluster *)cluster + (size_t)l * clusters, list);
        double d2 = -f->sine * pixel / (LATTICE * 0.8660254037844386), d1 = f->cosine * pixel / LATTICE - 0.5 * d2;
        for (int w = 0; w < waves; w++) {
            double each = hk[2 * w] * d1 + hk[2 * w + 1] * d2;
            for (int c = 0; c < columns; c++) sine[w][c] = turned(each * c);
            for (int c = 0; c < columns; c++) cosine[w][c] = cosf(sine[w][c]);
            for (int c = 0; c < columns; c++) sine[w][c] = sinf(sine[w][c]);
        }
        for (int r = 0; r < rows; r++) {
            float line[WIDEST + BLOCK] __attribute__((aligned(64)));
            float x0 = (float)((first[2 * r] - first[0]) * 1e10), y0 = (float)((first[2 * r + 1] - first[1]) * 1e10);
            lattice_row(f, first[2 * r], first[2 * r + 1], columns, waves, hk, coefficients + (size_t)optics[l] * waves * 2, mean[optics[l]], cosine, sine, line);
            for (int a = 0; a < n; a++) {
                float dy = y0 - list[a].y, base = x0 - list[a].x;
                if (fabsf(dy) >= limit) continue;
                float wide = sqrtf(limit * limit - dy * dy);
                int from = (int)ceilf((-wide - base) / step), to = (int)floorf((wide - base) / step);
                from = from < 0 ? 0 : from, to = to > columns - 1 ? columns - 1 : to;
                const float *p = table + list[a].species * (bins + 2);
                for (int c = from; c <= to; c += BLOCK) /* whole blocks; what is too far reads the zero at the end */
                    for (int b = 0; b < BLOCK; b++) {
                        float dx = base + (c + b) * step, t = fminf((dx * dx + dy * dy) * inverse, (float)bins);
                        int k = (int)t;
                        line[c + b] += list[a].sign * (p[k] + (t - k) * (p[k + 1] - p[k]));
                    }
            }
            for (int c = 0; c < columns; c++) line[c] = fmaxf(line[c], 0);
            memcpy(out + ((size_t)l * rows + r) * columns, line, sizeof(float) * columns);
        }
    }
    free(list);
    return 0;
}
