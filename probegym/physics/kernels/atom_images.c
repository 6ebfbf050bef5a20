/* Images of a graphene sheet as sums of round atom profiles; see physics/atom_images.py. SI units. */
#include <stdlib.h>
#include <string.h>

#include "graphene.h"

#define WIDEST 256
#define BLOCK 8
#define CLUSTER_ATOMS 24 /* carbon atoms that a cluster of contamination looks like */

typedef struct { float x, y; int species; } Atom;

static int gather(const Frame *f, double x, double y, double half_x, double half_y, int silicons, const Site *silicon, const double *seat,
                  int vacancies, const Site *vacancy, int clusters, const Cluster *cluster, int most, Atom *list)
{
    int n = 0;
    Site home = nearest(f, x, y);
    int rows = (int)(1.5 * (half_x + half_y) / LATTICE) + 2;
    double du = f->cosine * LATTICE, dv = f->sine * LATTICE; /* a step of i */
    for (int j = home.j - rows; j <= home.j + rows; j++) {
        Site start = {home.i, j, 0, 1};
        Point p = place(f, &start);
        double middle = home.i + ((x - p.x) * f->cosine + (y - p.y) * f->sine) / LATTICE, reach = sqrt(half_x * half_x + half_y * half_y) / LATTICE + 2;
        for (int i = (int)(middle - reach); i <= (int)(middle + reach); i++)
            for (int s = 0; s < 2; s++) {
                double px = p.x + (i - home.i) * du, py = p.y + (i - home.i) * dv;
                if (s) {
                    px += 0.5 * (f->cosine * LATTICE - f->sine * BOND), py += 0.5 * (f->sine * LATTICE + f->cosine * BOND);
                }
                if (fabs(px - x) > half_x || fabs(py - y) > half_y || n == most) continue;
                Site c = {i, j, s, 1};
                if (listed(silicon, silicons, &c) || listed(vacancy, vacancies, &c)) continue;
                list[n++] = (Atom){(float)((px - x) * 1e10), (float)((py - y) * 1e10), 0};
            }
    }
    for (int k = 0; k < silicons; k++)
        if (silicon[k].there && n < most) list[n++] = (Atom){(float)((seat[2 * k] - x) * 1e10), (float)((seat[2 * k + 1] - y) * 1e10), 1};
    for (int k = 0; k < clusters; k++) {
        const Cluster *c = cluster + k;
        if (!(c->radius > 0)) continue;
        for (int a = 0; a < CLUSTER_ATOMS && n < most; a++) { /* a sunflower, turned by the cluster's place */
            double far = c->radius * sqrt((a + 0.5) / CLUSTER_ATOMS), angle = 2.399963229728653 * a + 1e11 * c->x;
            list[n++] = (Atom){(float)((c->x + far * cos(angle) - x) * 1e10), (float)((c->y + far * sin(angle) - y) * 1e10), 0};
        }
    }
    return n;
}

/* Shares of the beam that reach the detector, (lanes, rows, columns).
 *
 * profiles: (states, 2, bins + 2) of carbon and silicon at equal steps of the squared distance up to reach^2 (Angstrom^2), then zeros.
 * background: (states) of carbon beyond reach. start: (lanes, rows, 2) m, first pixel of each row. pixel: m.
 * Returns 1 without memory.
 */
int atom_images(int lanes, int rows, int columns, double pixel, const double *frame, int silicons, const int32_t *silicon, const double *seat,
                int vacancies, const int32_t *vacancy, int clusters, const double *cluster, int bins, double reach, const float *profiles,
                const float *background, const int32_t *optics, const double *start, float *out)
{
    double half = 0.5e10 * pixel * (columns > rows ? columns : rows) + reach;
    int most = (int)(6 * half * half / 2.6) + 64 + CLUSTER_ATOMS * clusters + silicons;
    Atom *list = malloc(sizeof(Atom) * most);
    if (!list) return 1;
    float inverse = (float)(bins / (reach * reach)), step = (float)(pixel * 1e10), limit = (float)reach;
    for (int l = 0; l < lanes; l++) {
        const double *first = start + (size_t)l * rows * 2, *last = first + 2 * (rows - 1);
        double x = 0.5 * (first[0] + last[0]) + 0.5 * pixel * (columns - 1), y = 0.5 * (first[1] + last[1]), slack = 1e-10 * reach;
        double half_x = 0.5 * pixel * columns + slack + 0.5 * fabs(first[0] - last[0]), half_y = 0.5 * fabs(last[1] - first[1]) + slack;
        const Site *si = (const Site *)silicon + (size_t)l * silicons, *gone = (const Site *)vacancy + (size_t)l * vacancies;
        int n = gather((const Frame *)frame + l, x, y, half_x, half_y, silicons, si, seat + 2 * (size_t)l * silicons, vacancies, gone, clusters,
                       (const Cluster *)cluster + (size_t)l * clusters, most, list);
        const float *table = profiles + (size_t)optics[l] * 2 * (bins + 2);
        for (int r = 0; r < rows; r++) {
            float line[WIDEST + 2 * BLOCK] __attribute__((aligned(64)));
            float x0 = (float)((first[2 * r] - x) * 1e10), y0 = (float)((first[2 * r + 1] - y) * 1e10);
            for (int c = 0; c < columns + 2 * BLOCK; c++) line[c] = background[optics[l]];
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
                        line[c + b] += p[k] + (t - k) * (p[k + 1] - p[k]);
                    }
            }
            memcpy(out + ((size_t)l * rows + r) * columns, line, sizeof(float) * columns);
        }
    }
    free(list);
    return 0;
}
