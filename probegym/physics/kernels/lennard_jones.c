/* Energy and forces of the Lennard-Jones potential; see physics/lennard_jones.py. Lengths in sigma, energies in epsilon. */
#include <stdint.h>

#define ALL_PAIRS 0

/* onset below cutoff: switched off between the two; else cut off, and shifted by the energy at the cutoff if asked for. */
typedef struct { double cutoff, onset, shift; } Model;

#include "dynamics.h"

static double reach(const Model *m, int a, int b) { return m->cutoff; }
static int prepare(Work *w) { return DONE; }
static void release(Work *w) {}

static double interact(Work *w, const double *x, double *f)
{
    const Model *m = w->model;
    double energy = 0, far = m->cutoff * m->cutoff, near = m->onset * m->onset, span = (far - near) * (far - near) * (far - near);
    int switched = m->onset < m->cutoff;
    memset(f, 0, sizeof(double) * 3 * w->atoms);
    for (int i = 0; i < w->atoms; i++) {
        double fx = 0, fy = 0, fz = 0;
        for (int at = w->first[i]; at < w->first[i + 1]; at++) {
            int j = w->partner[at];
            double dx = apart(w, x + 3 * j, x + 3 * i, 0), dy = apart(w, x + 3 * j, x + 3 * i, 1), dz = apart(w, x + 3 * j, x + 3 * i, 2);
            double square = dx * dx + dy * dy + dz * dz;
            if (square > far) continue;
            double over = 1 / square, six = over * over * over, pair = 4 * six * (six - 1), slope = -24 * six * (2 * six - 1) * over;
            if (switched && square > near) { /* Brooks et al. 1983, 10.1002/jcc.540040211, eq. 14 */
                double rest = far - square, fade = rest * rest * (far + 2 * square - 3 * near) / span, fall = 12 * rest * (near - square) / span;
                slope = fade * slope + fall * pair, pair *= fade;
            }
            energy += pair - m->shift; /* slope: dE/dr over r */
            fx += slope * dx, fy += slope * dy, fz += slope * dz;
            f[3 * j] -= slope * dx, f[3 * j + 1] -= slope * dy, f[3 * j + 2] -= slope * dz;
        }
        f[3 * i] += fx, f[3 * i + 1] += fy, f[3 * i + 2] += fz;
    }
    return energy;
}
