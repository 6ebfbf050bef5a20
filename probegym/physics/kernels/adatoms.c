/* Adatoms on an fcc(111) surface under a moving tip; see physics/adatoms.py for the equations.
 *
 * Lengths in Angstrom, energies in eV, times in s, conductances in conductance quanta. Every lane is computed by itself, in
 * loops that do not depend on the batch. Sites are (i, j, b): b = 0 at the hollows 30 degrees from the close-packed row, 1 at the others.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "random.h"

#define POINTS 16       /* from where an adatom is to the next site */
#define NODES 4608
#define BLOCK 8192
#define MOST_ADATOMS 32
#define MOST_HOPS 4     /* in one step of the tip; sites that exchange faster are drawn from their equilibrium */
#define TINY 1e-290
#define ALIGNED __attribute__((aligned(64)))

/* One row a lane, in the order of adatoms.FIELDS. */
typedef struct {
    double spacing, barrier, stacking, energy /* k T */, attempt_rate, decay /* 2 kappa */, contact, apparent_height, offset_x, offset_y, depth,
        range, equilibrium, stretch_xx, stretch_xy, stretch_yy, cosine, sine;
} Lane;

static const double HOP_X[3] = {0.86602540378443865, -0.86602540378443865, 0}, HOP_Y[3] = {0.5, 0.5, -1};
static const int STEP_I[3] = {0, -1, 0}, STEP_J[3] = {0, 0, -1};

static void hop_vector(const Lane *p, int b, int n, double v[2])
{
    double sign = b ? -1 : 1, x = sign * HOP_X[n], y = sign * HOP_Y[n];
    v[0] = p->cosine * x - p->sine * y, v[1] = p->sine * x + p->cosine * y;
}

static void place(const Lane *p, const int32_t *site, double r[2])
{
    double third = (site[2] + 1) / 3.0, u = site[0] + third, v = site[1] + third;
    double x = p->spacing * (u + 0.5 * v), y = p->spacing * 0.86602540378443865 * v;
    r[0] = p->cosine * x - p->sine * y, r[1] = p->sine * x + p->cosine * y;
}

static void move(int32_t *site, int n)
{
    int sign = site[2] ? -1 : 1;
    site[0] += sign * STEP_I[n], site[1] += sign * STEP_J[n], site[2] = 1 - site[2];
}

/* The well of the tip at dx, dy from the apex and z below it. slope: V' / R; bend: (V'' - V' / R) / R^2. m: stretched dx, dy. */
typedef struct { double energy, slope, bend, m[2], far; } Pull;

static inline Pull pull_at(const Lane *p, double dx, double dy, double z)
{
    Pull w;
    w.m[0] = p->stretch_xx * dx + p->stretch_xy * dy, w.m[1] = p->stretch_xy * dx + p->stretch_yy * dy;
    w.far = sqrt(z * z + dx * w.m[0] + dy * w.m[1]);
    double e = exp(-p->range * (w.far - p->equilibrium));
    w.energy = p->depth * e * (e - 2);
    w.slope = 2 * p->depth * p->range * e * (1 - e) / w.far;
    w.bend = (2 * p->depth * p->range * p->range * e * (2 * e - 1) - w.slope) / (w.far * w.far);
    return w;
}

/* Cosine and sine of |u| <= pi by their series, within 4e-6. */
static inline void turned(double u, double *c, double *s)
{
    double u2 = u * u;
    *c = 1 - u2 * (1.0 / 2 - u2 * (1.0 / 24 - u2 * (1.0 / 720 - u2 * (1.0 / 40320 - u2 * (1.0 / 3628800 - u2 * (1.0 / 479001600 - u2 * (1.0 / 87178291200)))))));
    *s = u * (1 - u2 * (1.0 / 6 - u2 * (1.0 / 120 - u2 * (1.0 / 5040 - u2 * (1.0 / 362880 - u2 * (1.0 / 39916800 - u2 * (1.0 / 6227020800)))))));
}

/* Where an adatom of the hollow that lies dx, dy from the apex rests, from the hollow: by Newton's method from the last place, downhill
 * where the surface of energy is not convex. Returns the neighbour in whose half it ends up, or -1. */
static int settle(const Lane *p, int b, double dx, double dy, double z, double shift[2])
{
    double hop = p->spacing / sqrt(3), k = 2 * M_PI / (3 * hop), q = 2 * M_PI / p->spacing, odd = (b ? -p->stacking : p->stacking) / (3 * sqrt(3));
    double v[2], E = p->barrier;
    hop_vector(p, b, 0, v);
    for (int turn = 0; turn < 24; turn++) {
        double s = v[0] * shift[0] + v[1] * shift[1], x = v[0] * shift[1] - v[1] * shift[0]; /* along the first hop and across */
        double half = 0.5 * hop, c60 = 0.5, s60 = 0.86602540378443865;
        if (s > half) return 0;
        if (-c60 * s + s60 * x > half) return 1; /* the hops follow each other by 120 degrees, those of b = 1 as well */
        if (-c60 * s - s60 * x > half) return 2;
        Pull w = pull_at(p, dx + shift[0], dy + shift[1], z);
        double c, n, C, S; /* of the angle 2 pi / 3 + k s, which is pi away from where the series are best, and across */
        turned(k * s - M_PI / 3, &c, &n), turned(q * x, &C, &S);
        c = -c, n = -n;
        double c2 = 2 * c * c - 1, n2 = 2 * n * c;
        double ms = v[0] * w.m[0] + v[1] * w.m[1], mx = v[0] * w.m[1] - v[1] * w.m[0];
        double Ms = v[0] * v[0] * p->stretch_xx + 2 * v[0] * v[1] * p->stretch_xy + v[1] * v[1] * p->stretch_yy, Mx = p->stretch_xx + p->stretch_yy - Ms;
        double Mc = v[0] * v[1] * (p->stretch_yy - p->stretch_xx) + (v[0] * v[0] - v[1] * v[1]) * p->stretch_xy;
        double gs = k * (-4 * E * (n2 + n * C) + 2 * odd * (c2 - c * C)) + w.slope * ms, gx = q * S * (-4 * E * c + 2 * odd * n) + w.slope * mx;
        double hss = k * k * (-E * (8 * c2 + 4 * c * C) + odd * (2 * n * C - 4 * n2)) + w.slope * Ms + w.bend * ms * ms;
        double hxx = q * q * C * (-4 * E * c + 2 * odd * n) + w.slope * Mx + w.bend * mx * mx;
        double hsx = k * q * S * (4 * E * n + 2 * odd * c) + w.slope * Mc + w.bend * ms * mx;
        double det = hss * hxx - hsx * hsx, ds, dc;
        if (det > 1e-3 * q * q * q * q * E * E && hss + hxx > 0) ds = -(hxx * gs - hsx * gx) / det, dc = -(hss * gx - hsx * gs) / det;
        else {
            double size = sqrt(gs * gs + gx * gx) + 1e-12;
            ds = -0.12 * gs / size, dc = -0.12 * gx / size;
        }
        double size = sqrt(ds * ds + dc * dc), most = size > 0.25 ? 0.25 / size : 1;
        ds *= most, dc *= most;
        shift[0] += v[0] * ds - v[1] * dc, shift[1] += v[1] * ds + v[0] * dc;
        if (size < 0.03) break; /* A; the next step would be its square */
    }
    return -1;
}

/* An adatom whose hollow lies dx, dy from the apex at height z: where it rests (from the hollow; in: a guess), what it conducts,
 * and the barriers of its three hops. A barrier is the highest summit on the straight line from there to the next site in the sum of
 * surface and tip, relaxed across the line to second order, a parabola through three points. */
static double regard(const Lane *p, int b, double dx, double dy, double z, double shift[2], double climb[3])
{
    float height[3][POINTS] ALIGNED;
    double none = 9 * p->barrier, length = p->spacing / sqrt(3);
    int gone = settle(p, b, dx, dy, z, shift), open[3];
    double far = pull_at(p, dx + shift[0], dy + shift[1], z).far;
    climb[0] = climb[1] = climb[2] = none;
    if (gone >= 0) {
        climb[gone] = 0;
        return exp(-p->decay * (far - p->contact));
    }
    float hop = (float)length, E = (float)p->barrier, odd = (float)((b ? -p->stacking : p->stacking) / (3 * sqrt(3)));
    float depth = (float)p->depth, range = (float)p->range, rest = (float)p->equilibrium, k = (float)(2 * M_PI / 3) / hop, q = (float)(2 * M_PI / p->spacing);
    float xx = (float)p->stretch_xx, xy = (float)p->stretch_xy, yy = (float)p->stretch_yy, z2 = (float)(z * z), softest = 0.5f * E * q * q;
    Pull w = pull_at(p, dx, dy, z);
    for (int n = 0; n < 3; n++) {
        double v[2];
        hop_vector(p, b, n, v);
        open[n] = -w.slope * (w.m[0] * v[0] + w.m[1] * v[1]) * length > -0.05 * p->barrier; /* else the tip pulls it back */
        if (!open[n]) continue;
        float vx = (float)v[0], vy = (float)v[1], s0 = (float)(v[0] * shift[0] + v[1] * shift[1]), c0 = (float)(v[0] * shift[1] - v[1] * shift[0]);
        float es = hop - s0, ex = -c0, inverse = 1 / sqrtf(es * es + ex * ex), fs = -ex * inverse, fx = es * inverse; /* across the line */
        float across_x = fs * vx - fx * vy, across_y = fs * vy + fx * vx, x0 = (float)dx, y0 = (float)dy, *out = height[n];
        float stretch = across_x * across_x * xx + 2 * across_x * across_y * xy + across_y * across_y * yy;
        for (int i = 0; i < POINTS; i++) {
            float t = i * (1.0f / (POINTS - 1)), s = s0 + t * es, c = c0 + t * ex, x = x0 + s * vx - c * vy, y = y0 + s * vy + c * vx;
            float u = k * s - 1.04719755f, u2 = u * u, o = q * c, o2 = o * o; /* the cosine and sine of the angle plus pi, and across */
            float cs = -1 + u2 * (0.5f - u2 * (0.041666667f - u2 * (0.0013888889f - u2 * 2.48015873e-5f)));
            float sn = -u * (1 - u2 * (0.16666667f - u2 * (0.0083333333f - u2 * (1.98412698e-4f - u2 * 2.75573192e-6f))));
            float C = 1 - o2 * (0.5f - o2 * (0.041666667f - o2 * (0.0013888889f - o2 * 2.48015873e-5f)));
            float S = o * (1 - o2 * (0.16666667f - o2 * (0.0083333333f - o2 * (1.98412698e-4f - o2 * 2.75573192e-6f))));
            float c2 = 2 * cs * cs - 1, n2 = 2 * sn * cs, mx = xx * x + xy * y, my = xy * x + yy * y;
            float away = sqrtf(z2 + x * mx + y * my), e = expf(-range * (away - rest));
            float slope = 2 * depth * range * e * (1 - e) / away, bend = (2 * depth * range * range * e * (2 * e - 1) - slope) / (away * away);
            float lever = across_x * mx + across_y * my, valley = -4 * E * cs + 2 * odd * sn;
            float force = fs * k * (-4 * E * (n2 + sn * C) + 2 * odd * (c2 - cs * C)) + fx * q * S * valley + slope * lever;
            float stiff = fs * fs * k * k * (-E * (8 * c2 + 4 * cs * C) + odd * (2 * sn * C - 4 * n2)) + fx * fx * q * q * C * valley
                        + 2 * fs * fx * k * q * S * (4 * E * sn + 2 * odd * cs) + slope * stretch + bend * lever * lever;
            stiff = stiff > softest ? stiff : softest;
            out[i] = E * (2 * c2 + 4 * cs * C + 3) + odd * (n2 - 2 * sn * C) + depth * e * (e - 2) - 0.5f * force * force / stiff;
        }
    }
    for (int n = 0; n < 3; n++) {
        const float *u = height[n];
        float most = -1;
        int to = 0;
        if (!open[n]) continue;
        for (int i = 1; i < POINTS - 1; i++) /* a summit, not a slope that goes on rising: behind it lies the other site */
            if (u[i] > u[i + 1] && u[i] >= u[i - 1] && u[i] > u[to] + (to ? 0 : -1e30f)) to = i;
        if (!to) {
            climb[n] = u[POINTS - 1] < u[0] ? 0 : none;
            continue;
        }
        float d = u[to + 1] - u[to - 1], c = 2 * u[to] - u[to + 1] - u[to - 1];
        climb[n] = fmax(0, u[to] - u[0] + d * d / (8 * fmaxf(c, 1e-9f)));
    }
    return exp(-p->decay * (far - p->contact));
}

/* Least energy of a site under the tip, harmonic about the hollow; for the equilibrium between sites. */
static double depth_of(const Lane *p, const int32_t *site, double tx, double ty, double z)
{
    double r[2], stiff = 8 * M_PI * M_PI * p->barrier / (p->spacing * p->spacing);
    place(p, site, r);
    double x = r[0] - tx, y = r[1] - ty, mx = p->stretch_xx * x + p->stretch_xy * y, my = p->stretch_xy * x + p->stretch_yy * y;
    double far = sqrt(z * z + x * mx + y * my), e = exp(-p->range * (far - p->equilibrium)), slope = 2 * p->depth * p->range * e * (1 - e) / far;
    double stack = site[2] ? 0.5 * p->stacking : -0.5 * p->stacking;
    return stack + p->depth * e * (e - 2) - 0.5 * slope * slope * (mx * mx + my * my) / fmax(stiff + slope, 0.5 * stiff);
}

/* Height at which the setpoint flows: the background of the surface and every adatom conduct side by side. */
static double approach(const Lane *p, int count, const int32_t *sites, const int32_t *status, double tx, double ty, double conductance)
{
    double r[MOST_ADATOMS][2], goal = log(conductance), z = p->contact - goal / p->decay;
    int near = 0;
    for (int a = 0; a < count; a++) {
        if (status[a] == 2) continue;
        place(p, sites + 3 * a, r[near]);
        double x = r[near][0] - tx, y = r[near][1] - ty;
        r[near][0] = p->stretch_xx * x * x + 2 * p->stretch_xy * x * y + p->stretch_yy * y * y;
        if (r[near][0] < 144) near++;
    }
    for (int turn = 0; turn < 12; turn++) { /* Newton on the logarithm of the conductance */
        double total = exp(-p->decay * (z + p->apparent_height - p->contact)), slope = p->decay * total;
        for (int a = 0; a < near; a++) {
            double far = sqrt(z * z + r[a][0]), g = exp(-p->decay * (far - p->contact));
            total += g, slope += p->decay * g * z / far;
        }
        double step = (log(total) - goal) * total / slope;
        z += step > 0.5 ? 0.5 : step < -0.5 ? -0.5 : step;
        if (fabs(step) < 1e-7) break;
    }
    return z;
}

typedef struct { int count; float at[NODES], x[NODES], y[NODES]; } Track;

static void note(Track *k, double at, double x, double y)
{
    if (k->count == NODES) k->count--; /* more hops than a trace can tell: the last part becomes a straight line */
    k->at[k->count] = (float)at, k->x[k->count] = (float)x, k->y[k->count++] = (float)y;
}

/* Largest lateral force of the well at a height, over 16 distances. */
static double strongest(const Lane *p, double z)
{
    double most = 0;
    for (int i = 1; i <= 16; i++) {
        double d = 0.25 * i, far = sqrt(z * z + d * d), e = exp(-p->range * (far - p->equilibrium));
        most = fmax(most, fabs(2 * p->depth * p->range * e * (1 - e) * d / far));
    }
    return most;
}

static double least(const double climb[3]) { return fmin(climb[0], fmin(climb[1], climb[2])); }

/* Conductance of a tip above the adatom at which it follows a pull 10 degrees to either side of the hardest direction, which lies midway between two hops: the lowest
 * barrier on the way falls to ``climbed`` (lanes).  */
void thresholds(int lanes, const Lane *rows, const double *climbed, double *out)
{
    for (int l = 0; l < lanes; l++) {
        const Lane *p = rows + l;
        double v[2], w[2], low = p->contact - 0.6, high = p->contact + 3, shift[2], climb[3];
        hop_vector(p, 0, 0, v), hop_vector(p, 0, 1, w);
        double x = v[0] + w[0], y = v[1] + w[1], c = 0.984807753, s = 0.173648178; /* of 10 degrees */
        for (int turn = 0, inside = 0; turn < 20 && high - low > 0.01; turn++) { /* down in strides, then by halves */
            double z = inside ? 0.5 * (low + high) : high - 0.3, found = 9 * p->barrier;
            for (int i = 2; i <= 5 && found > climbed[l]; i++)
                for (int side = -1; side <= 1; side += 2) {
                    double d = -0.35 * i;
                    shift[0] = shift[1] = 0;
                    regard(p, 0, d * (c * x - side * s * y), d * (side * s * x + c * y), z, shift, climb);
                    found = fmin(found, least(climb));
                }
            if (found > climbed[l]) high = z;
            else low = z, inside = 1;
        }
        out[l] = exp(-p->decay * (0.5 * (low + high) - p->contact));
    }
}

/* Barriers (lanes, 3) of an adatom on a hollow of kind (lanes) that sits at (lanes, 3) x, y, z from the apex, z counted up to it. */
void barriers(int lanes, const Lane *rows, const int32_t *kind, const double *at, double *out)
{
    for (int l = 0; l < lanes; l++) {
        double shift[2] = {0, 0};
        regard(rows + l, kind[l], at[3 * l], at[3 * l + 1], at[3 * l + 2], shift, out + 3 * l);
    }
}

/* Drag of a batch. rows: (lanes) Lane. sites: (lanes, count, 3), status: (lanes, count) 0 free, 1 stuck, 2 gone; both change.
 * path: (lanes, 4) start and end of the tip, from the surface atom that is the origin. setpoint: (lanes, 2) V and conductance.
 * numbers: step of the tip where barriers are low, speed in A/s, rest in s before the tip moves, hops per electron at twice the onset.
 * limits: (lanes, 2) conductance of a pickup, and onset in V. noise: (lanes, 2) relative, and A rms. trace: (lanes, samples) A, may be null.
 * told: (lanes, 7) height of the tip, largest conductance, hops, picked up, stuck pairs, contact, way of the tip to the first hop or -1. */
void drag(int lanes, int count, int samples, const double *numbers, const Lane *rows, const uint64_t *keys, int32_t *sites, int32_t *status,
          const double *path, const double *setpoint, const double *limits, const double *noise, float *trace, double *told)
{
    static __thread Track tracks[MOST_ADATOMS];
    static __thread float gx[BLOCK] ALIGNED, gy[BLOCK] ALIGNED, total[BLOCK] ALIGNED, deviate[BLOCK] ALIGNED;
    const double step = numbers[0], speed = numbers[1], rest = numbers[2], yield = numbers[3];
    for (int l = 0; l < lanes; l++) {
        Lane p = rows[l];
        int32_t *site = sites + (size_t)3 * count * l, *state = status + (size_t)count * l;
        const double *way = path + 4 * l;
        double *out = told + 7 * l, sx = way[0] + p.offset_x, sy = way[1] + p.offset_y, ex = way[2] - way[0], ey = way[3] - way[1];
        double length = sqrt(ex * ex + ey * ey), duration = length / speed, volts = fabs(setpoint[2 * l]), onset = limits[2 * l + 1];
        double z = approach(&p, count, site, state, sx, sy, setpoint[2 * l + 1]);
        double background = exp(-p.decay * (z + p.apparent_height - p.contact));
        double electrons = volts > onset ? 7.748091729e-5 / 1.602176634e-19 * volts * yield * (volts / onset - 1) : 0; /* times g: hops/s */
        double felt = p.equilibrium + log(20 * p.depth / p.barrier + 2) / p.range, seen = z + p.apparent_height + 5.8 / p.decay;
        double reach2 = fmax(felt, seen) * fmax(felt, seen) - z * z; /* a twentieth of the barrier, 0.3 % of the background */
        int hops = 0, lost = 0, pairs = 0;
        double first = -1;
        uint64_t key = mix(keys[l]), draw = 0;
        double clock[MOST_ADATOMS], old[MOST_ADATOMS][3], peak[MOST_ADATOMS], g_now[MOST_ADATOMS], most = background;
#define DRAW() unit(mix(key + GOLDEN * ++draw))
#define RATE(c, g) (p.attempt_rate * (exp(-(c)[0] / p.energy) + exp(-(c)[1] / p.energy) + exp(-(c)[2] / p.energy)) + electrons * (g) + TINY)
        double tip_x = sx, tip_y = sy, shifts[MOST_ADATOMS][2] = {{0}}, climb[3];
        for (int a = 0; a < count; a++) {
            tracks[a].count = 0, peak[a] = 0, g_now[a] = 0;
            clock[a] = -log(DRAW());
        }
        int inside[MOST_ADATOMS] = {0};
        double force = 1.2 * strongest(&p, z), still = 45 * p.energy, lowest = 0, to = 0;
        for (int k = -1; to < 1; k++) { /* step -1 is the rest at the start; while all barriers are high the tip may go far */
            double from = to, stride = fmin(fmax((lowest - still) / force, step), 5 * step), time = rest, here = background;
            if (k >= 0) {
                to = k < 2046 ? fmin(1, from + stride / length) : 1;
                time = duration * (to - from);
                if (length <= 0) { /* nothing changes any more */
                    for (int a = 0; a < count; a++)
                        if (inside[a]) note(tracks + a, 1, tracks[a].x[tracks[a].count - 1], tracks[a].y[tracks[a].count - 1]);
                    break;
                }
            }
            lowest = 9 * p.barrier;
            tip_x = sx + to * ex, tip_y = sy + to * ey;
            for (int a = 0; a < count; a++) {
                if (state[a] == 2) continue;
                double r[2];
                place(&p, site + 3 * a, r);
                double dx = r[0] - tip_x, dy = r[1] - tip_y;
                if (p.stretch_xx * dx * dx + 2 * p.stretch_xy * dx * dy + p.stretch_yy * dy * dy > reach2) {
                    if (inside[a]) note(tracks + a, to, r[0], r[1]);
                    inside[a] = 0, shifts[a][0] = shifts[a][1] = 0;
                    continue;
                }
                double bx = sx + from * ex, by = sy + from * ey, spent = 0, start[3];
                double *shift = shifts[a];
                int turns = 0;
                if (!inside[a] || k < 0) {
                    double g = regard(&p, site[3 * a + 2], r[0] - bx, r[1] - by, z, shift, start);
                    note(tracks + a, from, r[0] + shift[0], r[1] + shift[1]);
                    memcpy(old[a], start, sizeof start), g_now[a] = g;
                    peak[a] = fmax(peak[a], g);
                }
                inside[a] = 1;
                double g0 = g_now[a], g1;
                memcpy(start, old[a], sizeof start);
                for (;;) {
                    place(&p, site + 3 * a, r);
                    g1 = regard(&p, site[3 * a + 2], r[0] - tip_x, r[1] - tip_y, z, shift, climb);
                    if (state[a] || (least(start) > still && least(climb) > still && electrons == 0)) break;
                    double left = time * (1 - spent), k0 = RATE(start, g0), k1 = RATE(climb, g1);
                    double bent = log(k1 / k0), hazard = left * (fabs(bent) < 1e-6 ? k0 : (k1 - k0) / bent);
                    if (hazard < clock[a]) {
                        clock[a] -= hazard;
                        break;
                    }
                    double share = fabs(bent) < 1e-6 ? clock[a] / (k0 * left) : log1p(bent * clock[a] / (k0 * left)) / bent;
                    share = share > 1 ? 1 : share < 0 ? 0 : share;
                    double e[3], w[3], sum = 0;
                    for (int n = 0; n < 3; n++) {
                        e[n] = start[n] + share * (climb[n] - start[n]);
                        w[n] = p.attempt_rate * exp(-e[n] / p.energy) + electrons * g0 / 3 + TINY;
                        sum += w[n];
                    }
                    double pick = DRAW() * sum;
                    int way_out = pick < w[0] ? 0 : pick < w[0] + w[1] ? 1 : 2;
                    double at = spent + share * (1 - spent), where = from + at * (to - from), cx = sx + where * ex, cy = sy + where * ey;
                    note(tracks + a, where, r[0] + shift[0], r[1] + shift[1]);
                    move(site + 3 * a, way_out);
                    if (!hops || where * length < first) first = where * length;
                    hops++, spent = at, clock[a] = -log(DRAW()), shift[0] = shift[1] = 0;
                    if (++turns > MOST_HOPS) { /* for what is left of the step in equilibrium with the neighbours within reach */
                        double energy[4], norm = 0, within = p.energy * log(fmax(2, p.attempt_rate * time * (1 - spent)));
                        place(&p, site + 3 * a, r);
                        regard(&p, site[3 * a + 2], r[0] - tip_x, r[1] - tip_y, z, shift, climb);
                        for (int n = 0; n < 4; n++) {
                            int32_t trial[3] = {site[3 * a], site[3 * a + 1], site[3 * a + 2]};
                            if (n < 3) move(trial, n);
                            energy[n] = n < 3 && climb[n] > within ? 1e9 : depth_of(&p, trial, tip_x, tip_y, z);
                        }
                        double bottom = fmin(fmin(energy[0], energy[1]), fmin(energy[2], energy[3]));
                        for (int n = 0; n < 4; n++) norm += energy[n] = exp((bottom - energy[n]) / p.energy);
                        double chosen = DRAW() * norm;
                        for (int n = 0; n < 3; n++) {
                            if (chosen < energy[n]) {
                                move(site + 3 * a, n);
                                break;
                            }
                            chosen -= energy[n];
                        }
                        spent = 1, shift[0] = shift[1] = 0;
                    }
                    for (int o = 0; o < count; o++) { /* nearer than the next site but one of the same kind: a dimer */
                        double q[2], m[2];
                        if (o == a || state[o] == 2) continue;
                        place(&p, site + 3 * o, q), place(&p, site + 3 * a, m);
                        double away = (q[0] - m[0]) * (q[0] - m[0]) + (q[1] - m[1]) * (q[1] - m[1]);
                        if (away < 1.1025 * p.spacing * p.spacing) state[a] = 1, state[o] = 1, pairs++;
                    }
                    place(&p, site + 3 * a, r);
                    if (spent < 1) {
                        g0 = regard(&p, site[3 * a + 2], r[0] - cx, r[1] - cy, z, shift, start);
                        note(tracks + a, where, r[0] + shift[0], r[1] + shift[1]);
                        peak[a] = fmax(peak[a], g0);
                    } else {
                        g1 = regard(&p, site[3 * a + 2], r[0] - tip_x, r[1] - tip_y, z, shift, climb);
                        note(tracks + a, to, r[0] + shift[0], r[1] + shift[1]);
                        break;
                    }
                }
                note(tracks + a, to, r[0] + shift[0], r[1] + shift[1]);
                memcpy(old[a], climb, sizeof climb), g_now[a] = g1;
                if (!state[a]) lowest = fmin(lowest, least(climb));
                peak[a] = fmax(peak[a], g1), here += g1;
            }
            most = fmax(most, here);
        }
        for (int a = 0; a < count; a++)
            if (!state[a] && peak[a] > 0 && DRAW() < -expm1(-pow(peak[a] / limits[2 * l], 4))) state[a] = 2, lost++;
        out[0] = z, out[1] = most, out[2] = hops, out[3] = lost, out[4] = pairs, out[5] = most >= 1, out[6] = first;
        if (!trace) continue;

        double pace = samples > 1 ? 1.0 / (samples - 1) : 0, amperes = 7.748091729e-5 * setpoint[2 * l];
        int padded = (samples + 15) & ~15;
        float floor_g = (float)background, decay = (float)p.decay, contact = (float)p.contact, z2 = (float)(z * z);
        float xx = (float)p.stretch_xx, xy = (float)p.stretch_xy, yy = (float)p.stretch_yy;
        for (int i = 0; i < padded; i++) total[i] = floor_g;
        for (int a = 0; a < count; a++) {
            Track *t = tracks + a;
            if (t->count < 2) continue;
            for (int n = 0; n + 1 < t->count; n++) { /* straight lines between the nodes */
                float at = t->at[n], width = t->at[n + 1] - at, inverse = width > 0 ? 1 / width : 0;
                float vx = (t->x[n + 1] - t->x[n]) * inverse, vy = (t->y[n + 1] - t->y[n]) * inverse;
                int from = (int)ceil((double)at * (samples - 1)), end = (int)floor((double)t->at[n + 1] * (samples - 1));
                for (int m = from; m <= end; m++) {
                    float u = (float)(m * pace) - at;
                    gx[m] = t->x[n] + vx * u - (float)sx, gy[m] = t->y[n] + vy * u - (float)sy;
                }
            }
            int first = (int)ceil((double)t->at[0] * (samples - 1)), last = (int)floor((double)t->at[t->count - 1] * (samples - 1)) + 1;
            int from = first & ~15, until = (last + 15) & ~15; /* whole vectors */
            for (int m = from; m < first; m++) gx[m] = gy[m] = 1e6f;
            for (int m = last; m < until; m++) gx[m] = gy[m] = 1e6f;
            float vx = (float)(ex * pace), vy = (float)(ey * pace);
            for (int m = from; m < until; m++) {
                float x = gx[m] - vx * m, y = gy[m] - vy * m;
                float far = sqrtf(z2 + xx * x * x + 2 * xy * x * y + yy * y * y);
                total[m] += expf(fmaxf(-60, -decay * (far - contact)));
            }
        }
        uint64_t seed = mix(key + 0x632be59bd9b4e019ull);
        float relative = (float)noise[2 * l], electronic = (float)noise[2 * l + 1], scale = (float)amperes;
        uint32_t low = (uint32_t)seed, high = (uint32_t)(seed >> 32);
        for (int m = 0; m < padded; m++) { /* the sum of four bytes of a hash, nearly normal (Wellons' lowbias32) */
            uint32_t h = low + 0x9e3779b9u * (uint32_t)m;
            h ^= h >> 16, h *= 0x7feb352du, h ^= h >> 15, h *= 0x846ca68bu, h ^= h >> 16, h ^= high, h *= 0x7feb352du, h ^= h >> 15;
            int sum = (int)(h & 255) + (int)(h >> 8 & 255) + (int)(h >> 16 & 255) + (int)(h >> 24);
            deviate[m] = (sum - 510) * 6.765875e-3f;
        }
        for (int m = 0; m < padded; m++) {
            float current = scale * total[m];
            total[m] = current + deviate[m] * sqrtf(relative * relative * current * current + electronic * electronic);
        }
        memcpy(trace + (size_t)l * samples, total, sizeof(float) * samples);
    }
}

/* Energy of the bare surface and its gradient, with the well of the tip added; r from the lattice's origin. */
static double landscape(const Lane *p, double x, double y, double tx, double ty, double z, double gradient[2])
{
    double g = 4 * M_PI / (sqrt(3) * p->spacing), energy = 3 * p->barrier, gx = 0, gy = 0;
    for (int n = 0; n < 3; n++) { /* reciprocal vectors at 90, 210 and 330 degrees to the close-packed row */
        double c = n == 0 ? 0 : n == 1 ? -0.86602540378443865 : 0.86602540378443865, s = n == 0 ? 1 : -0.5;
        double qx = g * (p->cosine * c - p->sine * s), qy = g * (p->sine * c + p->cosine * s), phase = qx * x + qy * y;
        double cp = cos(phase), sp = sin(phase), odd = p->stacking / (3 * sqrt(3));
        energy += 2 * p->barrier * cp - odd * sp;
        double d = -2 * p->barrier * sp - odd * cp;
        gx += d * qx, gy += d * qy;
    }
    double dx = x - tx, dy = y - ty, mx = p->stretch_xx * dx + p->stretch_xy * dy, my = p->stretch_xy * dx + p->stretch_yy * dy;
    double far = sqrt(z * z + dx * mx + dy * my), e = exp(-p->range * (far - p->equilibrium)), slope = 2 * p->depth * p->range * e * (1 - e) / far;
    gradient[0] = gx + slope * mx, gradient[1] = gy + slope * my;
    return energy + p->depth * e * (e - 2);
}

/* Energies (lanes, n) and forces (lanes, n, 2) at points (lanes, n, 2) under a tip at (lanes, 3). */
void landscapes(int lanes, int n, const Lane *rows, const double *points, const double *tip, double *energy, double *force)
{
    for (int l = 0; l < lanes; l++)
        for (int i = 0; i < n; i++) {
            const double *r = points + 2 * ((size_t)l * n + i), *t = tip + 3 * l;
            double g[2];
            energy[(size_t)l * n + i] = landscape(rows + l, r[0], r[1], t[0] + rows[l].offset_x, t[1] + rows[l].offset_y, t[2], g);
            force[2 * ((size_t)l * n + i)] = -g[0], force[2 * ((size_t)l * n + i) + 1] = -g[1];
        }
}

/* The reference: overdamped Langevin dynamics of one adatom under a tip that moves from start to end at height z.
 * friction: (lanes) eV s / A^2; at: (lanes, 2) first place, changed; track: (lanes, samples, 2) places at equal times. Euler & Maruyama. */
void langevin(int lanes, int samples, int64_t steps, double dt, const Lane *rows, const uint64_t *keys, const double *path, const double *z,
              const double *friction, double *at, double *track)
{
    for (int l = 0; l < lanes; l++) {
        const Lane *p = rows + l;
        const double *way = path + 4 * l;
        double x = at[2 * l], y = at[2 * l + 1], gain = dt / friction[l], kick = sqrt(2 * p->energy * gain);
        uint64_t key = mix(keys[l]);
        int64_t next = 0;
        int sample = 0;
        for (int64_t n = 0; n <= steps; n++) {
            double share = steps ? (double)n / steps : 0, g[2];
            if (n >= next && sample < samples) {
                track[2 * ((size_t)l * samples + sample)] = x, track[2 * ((size_t)l * samples + sample) + 1] = y;
                next = samples > 1 ? (int64_t)((double)(++sample) * steps / (samples - 1)) : steps + 1;
            }
            double tx = way[0] + p->offset_x + share * (way[2] - way[0]), ty = way[1] + p->offset_y + share * (way[3] - way[1]);
            landscape(p, x, y, tx, ty, z[l], g);
            uint64_t bits = mix(key + GOLDEN * (uint64_t)(n + 1));
            double radius = sqrt(-2 * log(unit(bits))), angle = 2 * M_PI * unit(mix(bits + GOLDEN)); /* Box & Muller */
            x += -gain * g[0] + kick * radius * cos(angle), y += -gain * g[1] + kick * radius * sin(angle);
        }
        at[2 * l] = x, at[2 * l + 1] = y;
    }
}
