/* Atoms in motion: neighbour list with a skin, Langevin dynamics, relaxation. See physics/dynamics.py.
 *
 * The including file defines `struct Model`, `reach` (cutoff of a pair of species) and `interact` (energy and forces), and
 * ALL_PAIRS as 1 where the list holds both i, j and j, i. Lengths and energies are the model's, times are s. Every lane is
 * computed by itself.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"

enum { DONE = 0, NO_MEMORY = 1, NOT_FINITE = 2, NOT_RELAXED = 3 };

typedef struct {
    int atoms, failed;
    const Model *model;
    const int32_t *species;
    double cell[3], inverse[3], skin; /* 0 in cell and inverse: not periodic */
    double *anchor;                   /* positions at which the list was made */
    int listed, room;
    int *first, *partner; /* neighbours of i: partner[first[i]] to partner[first[i + 1]] */
    void *scratch;
} Work;

static double reach(const Model *model, int a, int b);
static double interact(Work *w, const double *x, double *f);
static int prepare(Work *w);
static void release(Work *w);

static inline double bits_to_double(uint64_t bits) { double d; memcpy(&d, &bits, 8); return d; }
static inline uint64_t double_to_bits(double d) { uint64_t bits; memcpy(&bits, &d, 8); return bits; }

/* exp and log without branches, so that loops over them use the vector unit; within 2e-16 of the value or so. */
static inline double smooth_exp(double x)
{
    x = x < -700 ? -700 : x > 700 ? 700 : x;
    double n = rint(x * 1.4426950408889634), r = (x - n * 0.6931471805598903) - n * 5.497923018708371e-14;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0, p = p * r + 1.0 / 39916800.0, p = p * r + 1.0 / 3628800.0, p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0, p = p * r + 1.0 / 5040.0, p = p * r + 1.0 / 720.0, p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0, p = p * r + 1.0 / 6.0, p = p * r + 0.5, p = p * r + 1.0, p = p * r + 1.0;
    return p * bits_to_double((double_to_bits(n + 0x1.8p52) + 1023) << 52);
}

static inline double smooth_log(double x) /* x normal and above 0 */
{
    uint64_t bits = double_to_bits(x) - 0x3fe6a09e667f3bcdull; /* sqrt(1/2) */
    double e = bits_to_double((uint64_t)(((int64_t)bits >> 52) + 0x4330000000000400ll)) - (0x1p52 + 1024);
    double m = bits_to_double((bits & 0xfffffffffffffull) + 0x3fe6a09e667f3bcdull), s = (m - 1) / (m + 1), q = s * s;
    double p = 1.0 / 21;
    p = p * q + 1.0 / 19, p = p * q + 1.0 / 17, p = p * q + 1.0 / 15, p = p * q + 1.0 / 13, p = p * q + 1.0 / 11;
    p = p * q + 1.0 / 9, p = p * q + 1.0 / 7, p = p * q + 1.0 / 5, p = p * q + 1.0 / 3;
    return e * 0.6931471805599453 + 2 * (s + s * q * p);
}

/* a - b, the nearest image */
static inline double apart(const Work *w, const double *a, const double *b, int axis)
{
    double d = a[axis] - b[axis];
    return d - w->cell[axis] * rint(d * w->inverse[axis]);
}

static void list_neighbours(Work *w, const double *x)
{
    int n = w->atoms, count = 0;
    memcpy(w->anchor, x, sizeof(double) * 3 * n);
    for (int i = 0; i < n; i++) {
        w->first[i] = count;
        if (count + n > w->room) {
            int *grown = realloc(w->partner, sizeof(int) * 2 * (size_t)(count + n));
            if (!grown) { w->failed = NO_MEMORY; return; }
            w->partner = grown, w->room = 2 * (count + n);
        }
        for (int j = ALL_PAIRS ? 0 : i + 1; j < n; j++) {
            double dx = apart(w, x + 3 * j, x + 3 * i, 0), dy = apart(w, x + 3 * j, x + 3 * i, 1), dz = apart(w, x + 3 * j, x + 3 * i, 2);
            double far = reach(w->model, w->species[i], w->species[j]) + w->skin;
            w->partner[count] = j;
            count += (j != i) & (dx * dx + dy * dy + dz * dz < far * far);
        }
    }
    w->first[n] = count, w->listed = 1;
}

/* Energy, and forces into f; the list is made anew once an atom has gone half the skin. */
static double energy_and_forces(Work *w, const double *x, double *f)
{
    double most = 0;
    for (int i = 0; w->listed && i < w->atoms; i++) {
        double dx = x[3 * i] - w->anchor[3 * i], dy = x[3 * i + 1] - w->anchor[3 * i + 1], dz = x[3 * i + 2] - w->anchor[3 * i + 2];
        double moved = dx * dx + dy * dy + dz * dz;
        most = moved > most ? moved : most;
    }
    if (!w->listed || most > 0.25 * w->skin * w->skin) list_neighbours(w, x);
    return w->failed ? 0 : interact(w, x, f);
}

static int open_work(Work *w, const Model *model, int atoms, const int32_t *species, const double *cell, double skin)
{
    memset(w, 0, sizeof *w);
    w->atoms = atoms, w->model = model, w->species = species, w->skin = skin;
    for (int a = 0; a < 3; a++) w->cell[a] = cell[a], w->inverse[a] = cell[a] > 0 ? 1 / cell[a] : 0;
    w->anchor = malloc(sizeof(double) * 3 * atoms);
    w->first = malloc(sizeof(int) * (atoms + 1));
    return w->anchor && w->first ? prepare(w) : NO_MEMORY;
}

static void close_work(Work *w)
{
    release(w);
    free(w->anchor), free(w->first), free(w->partner);
}

/* bits, because -ffast-math lets the compiler believe that nothing else comes */
static int finite_bits(double value) { return (double_to_bits(value) >> 52 & 0x7ff) != 0x7ff; }

int evaluate(int lanes, int atoms, const Model *model, double skin, const int32_t *species, const double *cell, const double *x, double *energy,
             double *f)
{
    for (int l = 0; l < lanes; l++) {
        Work w;
        int status = open_work(&w, model, atoms, species + (int64_t)l * atoms, cell + 3 * l, skin);
        if (!status) energy[l] = energy_and_forces(&w, x + 3ll * l * atoms, f + 3ll * l * atoms), status = w.failed;
        close_work(&w);
        if (status) return status;
    }
    return DONE;
}

/* n standard normal numbers (Box & Muller 1958, 10.1214/aoms/1177706645). */
static void normals(uint64_t key, int n, double *out)
{
    for (int i = 0; i < (n + 1) / 2; i++) {
        double radius = sqrt(-2 * smooth_log(unit(mix(key + GOLDEN * (uint64_t)(2 * i + 1)))));
        double angle = 2 * M_PI * unit(mix(key + GOLDEN * (uint64_t)(2 * i + 2)));
        out[2 * i] = radius * cos(angle);
        if (2 * i + 1 < n) out[2 * i + 1] = radius * sin(angle);
    }
}

/* BAOAB: half a kick, half a drift, friction and noise, half a drift, half a kick. Without friction it is velocity Verlet.
 * lightness: 1/m of each atom; 0 holds it. log: (lanes, steps / every, 2) kinetic and potential energy, every so many steps. */
int run(int lanes, int atoms, const Model *model, double skin, const int32_t *species, const double *cell, double *x, double *v,
        const double *lightness, const double *friction, const double *thermal, const uint64_t *key, const int64_t *number, int steps, double dt,
        int every, double *log)
{
    int n = 3 * atoms, status = DONE;
    double *f = malloc(sizeof(double) * 5 * n), *kept = f + n, *kick = f + 2 * n, *noise = f + 3 * n, *rate = f + 4 * n;
    if (!f) return NO_MEMORY;
    for (int l = 0; l < lanes && !status; l++, x += n, v += n, species += atoms, lightness += atoms, friction += atoms, thermal += atoms) {
        Work w;
        int damped = 0, noisy = 0, logged = 0;
        for (int i = 0; i < atoms; i++) {
            double stays = exp(-friction[i] * dt), spread = sqrt((1 - stays * stays) * thermal[i] * lightness[i]);
            damped |= friction[i] > 0, noisy |= spread > 0;
            for (int a = 0; a < 3; a++) kept[3 * i + a] = stays, kick[3 * i + a] = spread, rate[3 * i + a] = 0.5 * dt * lightness[i];
        }
        status = open_work(&w, model, atoms, species, cell + 3 * l, skin);
        if (!status) energy_and_forces(&w, x, f), status = w.failed;
        for (int step = 0; step < steps && !status; step++) {
            for (int i = 0; i < n; i++) v[i] += rate[i] * f[i], x[i] += 0.5 * dt * v[i];
            if (damped) {
                for (int i = 0; i < n; i++) v[i] *= kept[i];
                if (noisy) {
                    normals(mix(key[l] + GOLDEN * ((uint64_t)(number[l] + step) + 1)), n, noise);
                    for (int i = 0; i < n; i++) v[i] += kick[i] * noise[i];
                }
            }
            for (int i = 0; i < n; i++) x[i] += 0.5 * dt * v[i];
            double potential = energy_and_forces(&w, x, f), kinetic = 0;
            for (int i = 0; i < n; i++) v[i] += rate[i] * f[i];
            status = w.failed ? w.failed : finite_bits(potential) ? DONE : NOT_FINITE;
            if ((step + 1) % every || status) continue;
            for (int i = 0; i < n; i++) kinetic += lightness[i / 3] > 0 ? 0.5 * v[i] * v[i] / lightness[i / 3] : 0;
            log[2 * logged] = kinetic, log[2 * logged + 1] = potential, logged++;
        }
        log += 2 * (steps / every);
        close_work(&w);
    }
    free(f);
    return status;
}

/* FIRE (Bitzek, Koskinen, Gaehler, Moseler & Gumbsch 2006, 10.1103/PhysRevLett.97.170201), at most 0.1 lengths a step.
 * left: largest force on an atom at the end. */
int relax(int lanes, int atoms, const Model *model, double skin, const int32_t *species, const double *cell, double *x, const uint8_t *held,
          double tolerance, int steps, double *energy, double *left)
{
    int n = 3 * atoms, status = DONE;
    double *f = malloc(sizeof(double) * 2 * n), *v = f + n;
    if (!f) return NO_MEMORY;
    for (int l = 0; l < lanes && !status; l++, x += n, species += atoms, held += atoms) {
        Work w;
        double dt = 0.1, mixing = 0.1;
        int downhill = 0;
        memset(v, 0, sizeof(double) * n);
        status = open_work(&w, model, atoms, species, cell + 3 * l, skin);
        for (int step = 0; step <= steps && !status; step++) {
            double power = 0, ff = 0, vv = 0, worst = 0, moved = 0;
            energy[l] = energy_and_forces(&w, x, f), status = w.failed ? w.failed : finite_bits(energy[l]) ? DONE : NOT_FINITE;
            for (int i = 0; i < atoms; i++) {
                if (held[i]) f[3 * i] = f[3 * i + 1] = f[3 * i + 2] = 0;
                double size = f[3 * i] * f[3 * i] + f[3 * i + 1] * f[3 * i + 1] + f[3 * i + 2] * f[3 * i + 2];
                worst = size > worst ? size : worst;
            }
            left[l] = sqrt(worst);
            if (left[l] < tolerance || step == steps || status) break;
            for (int i = 0; i < n; i++) power += f[i] * v[i], ff += f[i] * f[i], vv += v[i] * v[i];
            if (power > 0) {
                double turn = mixing * sqrt(vv / ff);
                for (int i = 0; i < n; i++) v[i] = (1 - mixing) * v[i] + turn * f[i];
                if (downhill++ > 5) dt = dt * 1.1 < 1 ? dt * 1.1 : 1, mixing *= 0.99;
            } else {
                memset(v, 0, sizeof(double) * n);
                dt *= 0.5, mixing = 0.1, downhill = 0;
            }
            for (int i = 0; i < n; i++) v[i] += dt * f[i], moved += dt * dt * v[i] * v[i];
            double scale = moved > 0.01 ? 0.1 / sqrt(moved) : 1;
            for (int i = 0; i < n; i++) x[i] += scale * dt * v[i];
        }
        close_work(&w);
    }
    free(f);
    return status;
}
