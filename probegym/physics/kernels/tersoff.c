/* Energy and forces of the Tersoff potential; see physics/tersoff.py for the equations. Lengths in Angstrom, energies in eV. */
#include <stdint.h>

#define ELEMENTS 4
#define ALL_PAIRS 1

/* pair: tables by (i, j), triple: by (i, j, k), both with ELEMENTS a side; order of physics/tersoff.py. */
typedef struct {
    double A[ELEMENTS * ELEMENTS], B[ELEMENTS * ELEMENTS], lambda1[ELEMENTS * ELEMENTS], lambda2[ELEMENTS * ELEMENTS], n[ELEMENTS * ELEMENTS],
        beta[ELEMENTS * ELEMENTS], R[ELEMENTS * ELEMENTS], D[ELEMENTS * ELEMENTS];
    double gamma[ELEMENTS * ELEMENTS * ELEMENTS], c2[ELEMENTS * ELEMENTS * ELEMENTS], d2[ELEMENTS * ELEMENTS * ELEMENTS],
        h[ELEMENTS * ELEMENTS * ELEMENTS], lambda3[ELEMENTS * ELEMENTS * ELEMENTS], m[ELEMENTS * ELEMENTS * ELEMENTS];
} Model;

#include "dynamics.h"

typedef double Quad[4]; /* x, y, z and nothing: one vector register */

/* Bonds i, j closer than the cutoff, those of an atom together; triples of two bonds of one atom, those of a bond together. */
typedef struct {
    int bond_room, triple_room, screened;
    int *atom, *other, *pair, *begin, *one, *two, *kind; /* begin: first triple of a bond */
    double *length, *cut, *slope, *repulsive, *attractive, *zeta, *weight, *radial;
    double *angular, *cosine, *bend, *screen, *stretch, *own, *cross, *far, *back;
    Quad *unit, *gradient;
} Scratch;

static double reach(const Model *m, int a, int b) { return m->R[a * ELEMENTS + b] + m->D[a * ELEMENTS + b]; }

static int prepare(Work *w)
{
    Scratch *s = w->scratch = calloc(1, sizeof *s);
    if (!s) return NO_MEMORY;
    for (int q = 0; q < ELEMENTS * ELEMENTS * ELEMENTS; q++) s->screened |= w->model->lambda3[q] != 0;
    return DONE;
}

static void release(Work *w)
{
    Scratch *s = w->scratch;
    if (!s) return;
    void *all[] = {s->atom, s->other, s->pair, s->begin, s->one, s->two, s->kind, s->length, s->cut, s->slope, s->repulsive, s->attractive,
                   s->zeta, s->weight, s->radial, s->angular, s->cosine, s->bend, s->screen, s->stretch, s->own, s->cross, s->far, s->back, s->unit,
                   s->gradient, s};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void grow(Work *w, void *field, size_t size, int room)
{
    void *old, *made = aligned_alloc(64, (size * room + 63) / 64 * 64);
    memcpy(&old, field, sizeof old);
    free(old);
    memcpy(field, &made, sizeof made);
    if (!made) w->failed = NO_MEMORY;
}

static void room_for_bonds(Work *w, Scratch *s, int bonds)
{
    if (bonds < s->bond_room) return;
    int room = s->bond_room = 2 * bonds + 64;
    int **whole[] = {&s->atom, &s->other, &s->pair, &s->begin};
    double **real[] = {&s->length, &s->cut, &s->slope, &s->repulsive, &s->attractive, &s->zeta, &s->weight, &s->radial};
    for (int i = 0; i < 4; i++) grow(w, whole[i], sizeof(int), room);
    for (int i = 0; i < 8; i++) grow(w, real[i], sizeof(double), room);
    grow(w, &s->unit, sizeof(Quad), room), grow(w, &s->gradient, sizeof(Quad), room);
}

static void room_for_triples(Work *w, Scratch *s, int triples)
{
    if (triples < s->triple_room) return;
    int room = s->triple_room = 2 * triples + 64;
    int **whole[] = {&s->one, &s->two, &s->kind};
    double **real[] = {&s->angular, &s->cosine, &s->bend, &s->screen, &s->stretch, &s->own, &s->cross, &s->far, &s->back};
    for (int i = 0; i < 3; i++) grow(w, whole[i], sizeof(int), room);
    for (int i = 0; i < 9; i++) grow(w, real[i], sizeof(double), room);
}

static int find_bonds(Work *w, Scratch *s, const double *x, int *triples)
{
    const Model *m = w->model;
    int bonds = 0, pairs = 0;
    room_for_bonds(w, s, w->first[w->atoms]);
    for (int i = 0; i < w->atoms && !w->failed; i++) {
        int from = bonds;
        for (int at = w->first[i]; at < w->first[i + 1]; at++) {
            int j = w->partner[at], pair = w->species[i] * ELEMENTS + w->species[j];
            double dx = apart(w, x + 3 * j, x + 3 * i, 0), dy = apart(w, x + 3 * j, x + 3 * i, 1), dz = apart(w, x + 3 * j, x + 3 * i, 2);
            double square = dx * dx + dy * dy + dz * dz, far = m->R[pair] + m->D[pair];
            if (square > far * far) continue;
            double r = sqrt(square), near = m->R[pair] - m->D[pair], cut = 1, slope = 0;
            if (r >= near) {
                double phase = M_PI * (r - m->R[pair]) / (2 * m->D[pair]);
                cut = 0.5 * (1 - sin(phase)), slope = -0.25 * M_PI / m->D[pair] * cos(phase);
            }
            s->atom[bonds] = i, s->other[bonds] = j, s->pair[bonds] = pair, s->length[bonds] = r, s->cut[bonds] = cut, s->slope[bonds] = slope;
            s->unit[bonds][0] = dx / r, s->unit[bonds][1] = dy / r, s->unit[bonds][2] = dz / r, s->unit[bonds][3] = 0;
            bonds++;
        }
        int degree = bonds - from;
        room_for_triples(w, s, 0);
        if (pairs + degree * (degree - 1) >= s->triple_room) { /* keep what is listed: the indices follow from the bonds */
            room_for_triples(w, s, pairs + degree * (degree - 1));
            bonds = pairs = 0, i = -1;
            continue;
        }
        for (int b = from; b < bonds; b++) {
            s->begin[b] = pairs;
            for (int k = from; k < bonds; k++) {
                s->one[pairs] = b, s->two[pairs] = k, s->kind[pairs] = s->pair[b] * ELEMENTS + s->pair[k] % ELEMENTS;
                pairs += k != b;
            }
        }
    }
    s->begin[bonds] = pairs, *triples = pairs;
    return bonds;
}

/* The loops below go over flat arrays of bonds and triples, so that the vector unit does eight at a time. */
static void bond_strength(const Model *m, const Scratch *s, int bonds)
{
    const int *pair = s->pair;
    const double *length = s->length;
    double *repulsive = s->repulsive, *attractive = s->attractive;
#pragma omp simd
    for (int b = 0; b < bonds; b++) {
        int p = pair[b];
        repulsive[b] = m->A[p] * smooth_exp(-m->lambda1[p] * length[b]);
        attractive[b] = -m->B[p] * smooth_exp(-m->lambda2[p] * length[b]);
    }
}

static void angular_terms(const Model *m, const Scratch *s, int triples)
{
    const int *first = s->one, *second = s->two, *kind = s->kind;
    const double *unit = s->unit[0];
    double *angular = s->angular, *bend = s->bend, *cosine = s->cosine, *screen = s->screen, *stretch = s->stretch;
#pragma omp simd
    for (int t = 0; t < triples; t++) {
        int u = 4 * first[t], v = 4 * second[t], q = kind[t];
        double along = unit[u] * unit[v] + unit[u + 1] * unit[v + 1] + unit[u + 2] * unit[v + 2];
        double lift = m->h[q] - along, d2 = m->d2[q], pull = m->gamma[q] * m->c2[q] / (d2 * (d2 + lift * lift));
        cosine[t] = along;
        angular[t] = m->gamma[q] + pull * lift * lift; /* gamma (1 + c^2/d^2 - c^2/(d^2 + lift^2)), without the difference */
        bend[t] = -2 * pull * lift * d2 / (d2 + lift * lift);
        screen[t] = 1, stretch[t] = 0;
    }
    for (int t = 0; s->screened && t < triples; t++) {
        double gap = s->length[first[t]] - s->length[second[t]], l = m->lambda3[kind[t]];
        int cube = m->m[kind[t]] == 3;
        double power = cube ? l * l * l * gap * gap * gap : l * gap, turn = cube ? 3 * l * l * l * gap * gap : l;
        screen[t] = power > 69.0776 ? 1e30 : power < -69.0776 ? 0 : smooth_exp(power);
        stretch[t] = turn * screen[t];
    }
}

static void bond_orders(const Model *m, const Scratch *s, int bonds)
{
    const int *pair = s->pair;
    const double *length = s->length, *cut = s->cut, *slope = s->slope, *repulsive = s->repulsive, *attractive = s->attractive;
    double *zeta = s->zeta, *weight = s->weight, *radial = s->radial;
#pragma omp simd
    for (int b = 0; b < bonds; b++) {
        int p = pair[b];
        double power = smooth_exp(m->n[p] * smooth_log(m->beta[p] * zeta[b])), order = smooth_exp(-0.5 / m->n[p] * smooth_log(1 + power));
        double both = repulsive[b] + order * attractive[b];
        double change = -m->lambda1[p] * repulsive[b] - m->lambda2[p] * order * attractive[b];
        radial[b] = 0.5 * (slope[b] * both + cut[b] * change);
        weight[b] = -0.25 * cut[b] * attractive[b] * order * power / ((1 + power) * zeta[b]);
        zeta[b] = 0.5 * cut[b] * both; /* from here on the energy of the bond */
    }
}

static void triple_forces(const Scratch *s, int triples)
{
    const int *first = s->one, *second = s->two;
    const double *all_weights = s->weight, *cut = s->cut, *slope = s->slope, *length = s->length;
    const double *angular = s->angular, *bend = s->bend, *cosine = s->cosine, *screen = s->screen, *stretch = s->stretch;
    double *cross = s->cross, *back = s->back, *own = s->own, *far = s->far;
#pragma omp simd
    for (int t = 0; t < triples; t++) {
        int one = first[t], two = second[t];
        double weight = all_weights[one], turn = weight * cut[two] * bend[t] * screen[t], pull = weight * cut[two] * angular[t] * stretch[t];
        cross[t] = turn / length[one], back[t] = turn / length[two];
        own[t] = pull - cosine[t] * turn / length[one];
        far[t] = weight * slope[two] * angular[t] * screen[t] - pull - cosine[t] * turn / length[two];
    }
}

static double interact(Work *w, const double *x, double *f)
{
    Scratch *s = w->scratch;
    int triples, bonds = find_bonds(w, s, x, &triples);
    double energy = 0;
    if (w->failed) return 0;
    bond_strength(w->model, s, bonds);
    angular_terms(w->model, s, triples);
    for (int b = 0; b < bonds; b++) {
        double zeta = 1e-200; /* a bond without neighbours has the order 1 */
        for (int t = s->begin[b]; t < s->begin[b + 1]; t++) zeta += s->cut[s->two[t]] * s->angular[t] * s->screen[t];
        s->zeta[b] = zeta;
    }
    bond_orders(w->model, s, bonds);
    triple_forces(s, triples);
    for (int b = 0; b < bonds; b++) {
        energy += s->zeta[b];
        for (int a = 0; a < 4; a++) s->gradient[b][a] = s->radial[b] * s->unit[b][a];
    }
    for (int b = 0; b < bonds; b++) {
        double own = 0;
        Quad sum = {0};
        for (int t = s->begin[b]; t < s->begin[b + 1]; t++) {
            const double *other = s->unit[s->two[t]];
            double *gradient = s->gradient[s->two[t]], cross = s->cross[t], back = s->back[t], far = s->far[t];
            own += s->own[t];
            for (int a = 0; a < 4; a++) sum[a] += cross * other[a], gradient[a] += back * s->unit[b][a] + far * other[a];
        }
        for (int a = 0; a < 4; a++) s->gradient[b][a] += sum[a] + own * s->unit[b][a];
    }
    memset(f, 0, sizeof(double) * 3 * w->atoms);
    for (int b = 0; b < bonds; b++)
        for (int a = 0; a < 3; a++) f[3 * s->atom[b] + a] += s->gradient[b][a], f[3 * s->other[b] + a] -= s->gradient[b][a];
    return energy;
}
