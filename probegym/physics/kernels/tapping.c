/* Tapping mode in slow time: the complex amplitude of the first mode, driven by the tip force averaged over a cycle.

   q = Re(a exp(i w t)); averaging (Krylov & Bogoliubov) gives a' = (-1/2Q - Fs/2krA + i (W - Fc/2krA)) a - i F0/2kr in units of
   1/w0, with Fc and Fs the first harmonics of the tip force. A step freezes the bracket, takes the [2/2] Pade form of its
   exponential (stable for every step, exact at the fixed point) and corrects once. Averages of the force: closed forms out
   of contact, tables of scaled variables in contact. Lanes go in tiles of WIDTH, all arrays (.., WIDTH). */
#pragma GCC optimize("no-tree-pre", "no-thread-jumps") /* they put branches and early loads into the lane loop, which then does not vectorise */
#define real float
#define root sqrtf
#include "tapping.h"

#define WIDTH 16
#define FLAT 512 /* entries of the contact table over w = u / (1 + u): normalised mean, in-phase, quadrature part, bend over mean */
#define SIDE 96  /* of the attraction table over (sqrt(u / (1 + u)), sqrt(rho / (1 + rho))), u = depth / 2A, rho = a0 / A */

ALWAYS real arc_cosine(real x) /* Abramowitz & Stegun 4.4.45, error < 7e-5 */
{
    real y = fabsf(x), r = sqrtf(1 - y > 0 ? 1 - y : 0) * (1.5707288f + y * (-0.2121144f + y * (0.0742610f - 0.0187293f * y)));
    return x < 0 ? 3.14159265f - r : r;
}

ALWAYS uint32_t hash32(uint32_t x) /* Wellons' lowbias32 */
{
    x ^= x >> 16, x *= 0x7feb352du, x ^= x >> 15, x *= 0x846ca68bu;
    return x ^ x >> 16;
}

/* Nearly normal, variance 1: the sum of four bytes. A time constant holds many of them. */
ALWAYS real deviate(uint32_t bits)
{
    int sum = (int)(bits & 255) + (int)(bits >> 8 & 255) + (int)(bits >> 16 & 255) + (int)(bits >> 24);
    return (sum - 510) * 6.765875e-3f;
}

/* The same of two bytes, for what a filter smooths at once. */
ALWAYS real coarse_deviate(uint32_t bits)
{
    return ((int)(bits & 255) + (int)(bits >> 8 & 255) - 255) * 9.568332e-3f;
}

/* A depth, not more than elastic energy allows: (8/15) E sqrt(R) d^(5/2) <= energy, with 3/8 for the exponent of 2/5. */
ALWAYS real bounced(real depth, real elastic, real energy)
{
    real excess = 0.53333333f * elastic * depth * depth * sqrtf(depth) / energy;
    real eighth = sqrtf(sqrtf(sqrtf(excess > 1 ? excess : 1)));
    return depth / (eighth * eighth * eighth);
}

/* In-phase and quadrature part of the tip force at amplitude A and lowest gap s, and ``bend``: what mean and harmonics of the
   force move the lowest point by, times the stiffness. For a short pulse that is minus half the mean force, or a quarter of the
   in-phase part, since the sum over harmonics n > 1 of 2/(1 - n^2) is -3/2; for a force that lasts it is the mean force.
   ``bend`` leaves out that quarter, which on a hard sample would deepen the contact that it comes from without end; the caller
   adds it from the virial, which knows the in-phase part from the phase. grip: slope of bend in contact. energy: what may go
   into the contact. In the first cycles after a wall was hit the swing would go deeper than that, and turn by more than a
   collision does: the tip bounces, and the mean force is twice the momentum k A / w0 sqrt(2 d / A) a cycle. */
ALWAYS void averaged_force(real A, real s, real energy, real radius, real hamaker, real modulus, real drag, real electric, real neck, real neck_on,
                           real neck_off, real stiffness, const real *contact, const real *attraction, int extras, real *bend, real *cosine, real *sine,
                           real *grip)
{
    real b = s + A, far = s > CONTACT ? s : CONTACT, B = far + A, product = far * (far + 2 * A), spread = sqrtf(product);
    real vdw = hamaker * radius * (1.0f / 6);
    real nominal = s < CONTACT ? CONTACT - s : 0, depth = bounced(nominal, modulus * sqrtf(radius), energy);
    real u = depth / (2 * A), up = 1 + u;
    real inverse = 1 / (product * spread);
    real fm = -vdw * B * inverse, fc = vdw * 2 * A * inverse; /* -1/d^2: mean -B/(B^2-A^2)^(3/2), cos part +2A/(..)^(3/2) */
    real rho = CONTACT / A, x = sqrtf(u / up) * (SIDE - 1), y = sqrtf(rho / (1 + rho)) * (SIDE - 1);
    x = x < SIDE - 1.001f ? x : SIDE - 1.001f, y = y < SIDE - 1.001f ? y : SIDE - 1.001f;
    int i = (int)x, j = (int)y, o = 4 * (i * SIDE + j);
    real fx = x - i, fy = y - j, w00 = (1 - fx) * (1 - fy), w01 = (1 - fx) * fy, w10 = fx * (1 - fy), w11 = fx * fy;
#define AT(n) (w00 * attraction[o + n] + w01 * attraction[o + 4 + n] + w10 * attraction[o + 4 * SIDE + n] + w11 * attraction[o + 4 * SIDE + 4 + n])
    int pressed = depth > 0;
    real wall = vdw * (real)(1 / (0.165 * 0.165));
    real inside_m = -wall * AT(0), inside_c = -wall * AT(1);
    fm = pressed ? inside_m : fm, fc = pressed ? inside_c : fc;
    if (extras & 1) {
        real em = -electric * radius / spread, ec = -2 * electric * radius * (1 - B / spread) / A; /* -1/d */
        real near = electric * radius * (real)(1 / 0.165), near_m = -near * AT(2), near_c = -near * AT(3);
        fm += pressed ? near_m : em, fc += pressed ? near_c : ec;
    }
    real w = u / up * (FLAT - 1);
    w = w < FLAT - 1.001f ? w : FLAT - 1.001f;
    int k = (int)w;
    real f = w - k;
    k *= 4;
#define CONTACT_TABLE(n) (contact[k + n] + f * (contact[k + 4 + n] - contact[k + n]))
    real A2 = 2 * A, rA2 = sqrtf(A2), up1 = 1 / sqrtf(up), scale = u * u * up1;
    real dmt = (4.0f / 3) * modulus * sqrtf(radius) * A2 * rA2, push = dmt * scale * CONTACT_TABLE(0), share = CONTACT_TABLE(3);
    real bounce = 0.31830989f * stiffness * sqrtf(A2 * nominal) - fm, less = push > bounce ? bounce / push : 1;
    push *= less;
    real beta = (B - spread) / A, short_lived = 1 - 1.5f * beta * beta; /* the attraction's harmonics fall as beta^n */
    real in_phase = less * dmt * scale / up * CONTACT_TABLE(1), left = push * share - 0.25f * in_phase;
    *bend = fm * short_lived - 0.25f * fc + left;
    *cosine = fc + in_phase;
    *sine = drag * sqrtf(radius) * rA2 * A * scale / up * CONTACT_TABLE(2);
    *grip = left > 0 ? 2 * left / (depth + 1e-3f) : 0;
    if (extras & 2) {
        real low = 1 - (neck_on - s) / A, high = 1 - (neck_off - s) / A;
        low = low > 1 ? 1 : low < -1 ? -1 : low, high = high > 1 ? 1 : high < -1 ? -1 : high;
        high = s < neck_on ? high : 1;
        low = high <= -1 ? -1 : low; /* a neck that never breaks is always there */
        real a1 = arc_cosine(low), a2 = arc_cosine(high), s1 = sqrtf(1 - low * low), s2 = sqrtf(1 - high * high);
        *bend -= neck * (a1 + a2 + 0.5f * (s1 + s2)) * 0.15915494f;
        *cosine += neck * (s1 + s2) * 0.31830989f;
        *sine += neck * (low - high) * 0.31830989f;
    }
}

/* One way along a line for one tile. p: (PARAMETERS, WIDTH); s: (STATES, WIDTH); steps: (WIDTH) control steps per cell;
   T: (WIDTH) s, of a control step; seeds: (2, WIDTH); height, hamaker, modulus, viscosity, forward: (cells, WIDTH);
   out: (cells, CHANNELS, WIDTH). Lanes that have done their steps of a cell wait for the others. */
static inline __attribute__((always_inline)) void scan(
    int cells, int extras, const double *p, double *state, const int32_t *steps, const double *T, const uint32_t *seeds, const float *height,
    const float *hamaker, const float *modulus, const float *viscosity, const float *forward, const float *contact,
    const float *attraction, float *out)
{
    float s[STATES][WIDTH], c[PARAMETERS][WIDTH], last[WIDTH], decay[WIDTH], rotate[WIDTH], drive[WIDTH], half[WIDTH], compliance[WIDTH], kick[WIDTH], seen_kick[WIDTH], filter[WIDTH];
    float gain[WIDTH], period[WIDTH], pz[WIDTH], pzv[WIDTH], pvz[WIDTH], pvv[WIDTH], relax[3][WIDTH];
    uint32_t count[WIDTH];
    int most = 0;
    for (int l = 0; l < WIDTH; l++) {
        for (int i = 0; i < STATES; i++) s[i][l] = state[i * WIDTH + l];
        for (int i = 0; i < PARAMETERS; i++) c[i][l] = p[i * WIDTH + l];
#define P(name) p[name * WIDTH + l]
        double r = P(DETUNING), w0 = P(FREQUENCY), damping = 1 / (2 * P(QUALITY)), slow = w0 * T[l];
        decay[l] = -damping, rotate[l] = (1 - r * r) / (2 * r), half[l] = 1 / (2 * P(STIFFNESS) * r), drive[l] = P(DRIVE) * half[l];
        period[l] = slow, gain[l] = P(INTEGRAL_GAIN) * T[l], compliance[l] = 1 / P(STIFFNESS);
        kick[l] = sqrt(P(THERMAL) * (1 - exp(-2 * damping * slow))), seen_kick[l] = P(SENSOR) / sqrt(T[l]);
        filter[l] = 1 - exp(-P(DEMODULATOR) * T[l]);
        piezo z;
        piezo_set(&z, P(PIEZO_FREQUENCY), P(PIEZO_QUALITY), T[l]);
        pz[l] = z.z, pzv[l] = z.zv, pvz[l] = z.vz, pvv[l] = z.vv;
        for (int i = 0; i < 3; i++) relax[i][l] = 1 - exp(-steps[l] * T[l] / CREEP_TIMES[i]);
        c[FREQUENCY][l] = w0 * r * 1e-9; /* Pa s nm^2 / s to nN */
        most = steps[l] > most ? steps[l] : most;
        count[l] = 0, last[l] = height[l];
    }
    for (int cell = 0; cell < cells; cell++) {
        const float *h1 = height + cell * WIDTH, *H = hamaker + cell * WIDTH, *E = modulus + cell * WIDTH, *eta = viscosity + cell * WIDTH;
        const float *ff = forward + cell * WIDTH;
        float sums[3][WIDTH] = {{0}}, peak[WIDTH], rail[WIDTH] = {0}, command[WIDTH] = {0}, creep[WIDTH];
        for (int l = 0; l < WIDTH; l++) peak[l] = 0, creep[l] = s[CREEP_1][l] + s[CREEP_2][l] + s[CREEP_3][l];
        for (int k = 0; k < most; k++) {
#pragma omp simd
            for (int l = 0; l < WIDTH; l++) {
                int on = k < steps[l];
                float h = last[l] + (h1[l] - last[l]) * (k + 0.5f) / steps[l], ar = s[A_RE][l], ai = s[A_IM][l], q0 = s[DEFLECTION][l];
                float z = s[Z][l], radius = c[RADIUS][l], drag = eta[l] * c[FREQUENCY][l], base = c[BASE][l];
                float bend, cosine, sine, grip, bend2, cosine2, sine2, grip2;
                float tr = ar + base, A = sqrtf(tr * tr + ai * ai) + 1e-3f, low = z + q0 - h - A, pressed = h - z > 0 ? h - z : 0;
                float energy = 0.5f * c[STIFFNESS][l] * (A + pressed) * (A + pressed);
#define FORCE(A, low, m, x, y, g) averaged_force(A, low, energy, radius, H[l], E[l], drag, c[ELECTRIC][l], c[NECK_FORCE][l], c[NECK_ON][l], c[NECK_OFF][l], c[STIFFNESS][l], contact, attraction, extras, &m, &x, &y, &g)
                FORCE(A, low, bend, cosine, sine, grip);
                float quarter = 0.25f * (rotate[l] * (A * A - base * tr) + decay[l] * base * ai - drive[l] * tr) / (half[l] * A); /* of the in-phase force, by the virial */
                float gs = sine * half[l] / A, gc = cosine * half[l] / A;
                /* (a, drive) over one step with the bracket frozen: N = 12 + 6x + x^2, D = 12 - 6x + x^2 */
#define ADVANCE(gs, gc, nr, ni) do { \
                    float re = (decay[l] - gs) * period[l], im = (rotate[l] - gc) * period[l], dr = -gs * base, di = -drive[l] - gc * base; \
                    float xr = re * re - im * im + 12, xi = 2 * re * im, Nr = xr + 6 * re, Ni = xi + 6 * im, Dr = xr - 6 * re, Di = xi - 6 * im; \
                    float ur = Nr * ar - Ni * ai + 12 * period[l] * dr, ui = Nr * ai + Ni * ar + 12 * period[l] * di; \
                    float size = 1 / (Dr * Dr + Di * Di); \
                    nr = (ur * Dr + ui * Di) * size, ni = (ui * Dr - ur * Di) * size; } while (0)
                float br, bi;
                ADVANCE(gs, gc, br, bi);
                q0 += ((bend + quarter) * compliance[l] - q0) / (1 + grip * compliance[l]);
                q0 = q0 > -0.02f * A ? q0 : -0.02f * A; /* more of it is no correction */
                tr = br + base;
                float A2 = sqrtf(tr * tr + bi * bi) + 1e-3f;
                FORCE(A2, z + q0 - h - A2, bend2, cosine2, sine2, grip2);
                gs = 0.5f * (gs + sine2 * half[l] / A2), gc = 0.5f * (gc + cosine2 * half[l] / A2);
                ADVANCE(gs, gc, br, bi);
                q0 += ((bend2 + quarter) * compliance[l] - q0) / (1 + grip2 * compliance[l]);
                q0 = q0 > -0.02f * A ? q0 : -0.02f * A;
                float d = CONTACT - (z + q0 - h - A2), wide;
                d = bounced(d > 0 ? d : 0, E[l] * sqrtf(radius), energy), wide = sqrtf(radius * d);
                float pull = H[l] * radius * (float)(1 / (6 * 0.165 * 0.165)), push = (4.0f / 3) * E[l] * wide * d;
                /* (elastic) cos^3 + (drag) sin cos of an angle on the way in; close to its maximum */
                float brake = drag * wide * sqrtf(2 * A2 * d), sine_in = brake / (2 * push + 1.4142136f * brake + 1e-9f), left = 1 - sine_in * sine_in;
                push = sqrtf(left) * (push * left + brake * sine_in) - pull;
                if (extras & 1) push -= c[ELECTRIC][l] * radius * (float)(1 / 0.165);
                if (extras & 2) push -= c[NECK_FORCE][l];
                peak[l] = on & (push > peak[l]) ? push : peak[l];
                uint32_t n = 3 * count[l], r1 = hash32(hash32(n ^ seeds[l]) ^ seeds[WIDTH + l]), r2 = hash32(hash32((n + 1) ^ seeds[l]) ^ seeds[WIDTH + l]);
                uint32_t r3 = hash32(hash32((n + 2) ^ seeds[l]) ^ seeds[WIDTH + l]);
                br += kick[l] * deviate(r1), bi += kick[l] * deviate(r2);
                float si = s[I_SEEN][l], sq = s[Q_SEEN][l], in = s[INTEGRAL][l], ca = s[CARRY][l], v = s[Z_SPEED][l], u, ra = rail[l];
                control(br + seen_kick[l] * coarse_deviate(r3), bi + seen_kick[l] * coarse_deviate(r3 >> 16), filter[l], c[SETPOINT][l], c[PROPORTIONAL][l], gain[l], c[FEED_FORWARD][l] * ff[l], c[RANGE][l], creep[l],
                        pz[l], pzv[l], pvz[l], pvv[l], &si, &sq, &in, &ca, c[RELAY][l], &z, &v, &u, &ra);
                count[l] += on;
                s[A_RE][l] = on ? br : ar, s[A_IM][l] = on ? bi : ai, s[DEFLECTION][l] = on ? q0 : s[DEFLECTION][l];
                s[I_SEEN][l] = on ? si : s[I_SEEN][l], s[Q_SEEN][l] = on ? sq : s[Q_SEEN][l];
                s[INTEGRAL][l] = on ? in : s[INTEGRAL][l], s[CARRY][l] = on ? ca : s[CARRY][l];
                s[Z][l] = on ? z : s[Z][l], s[Z_SPEED][l] = on ? v : s[Z_SPEED][l];
                command[l] = on ? u : command[l], rail[l] = on ? ra : rail[l];
                sums[0][l] += on ? u : 0, sums[1][l] += on ? si : 0, sums[2][l] += on ? sq : 0;
            }
        }
        for (int l = 0; l < WIDTH; l++) {
            for (int i = 0; i < 3; i++) {
                s[CREEP_1 + i][l] += (c[CREEP][l] * command[l] - s[CREEP_1 + i][l]) * relax[i][l];
                out[(cell * CHANNELS + i) * WIDTH + l] = sums[i][l] / steps[l];
            }
            out[(cell * CHANNELS + OUT_PEAK) * WIDTH + l] = peak[l], out[(cell * CHANNELS + OUT_RAIL) * WIDTH + l] = rail[l];
            last[l] = h1[l];
        }
    }
    for (int l = 0; l < WIDTH; l++)
        for (int i = 0; i < STATES; i++) state[i * WIDTH + l] = s[i][l];
}

#define SCAN(extras) scan(cells, extras, p, state, steps, T, seeds, height, hamaker, modulus, viscosity, forward, contact, attraction, out)

/* extras: 1 electrostatic, 2 capillary, 3 both; each variant is compiled for itself, because a branch would stop the vector loop. */
void scan_averaged(int cells, int extras, const double *p, double *state, const int32_t *steps, const double *T, const uint32_t *seeds,
                   const float *height, const float *hamaker, const float *modulus, const float *viscosity, const float *forward,
                   const float *contact, const float *attraction, float *out)
{
    switch (extras) {
    case 0: SCAN(0); break;
    case 1: SCAN(1); break;
    case 2: SCAN(2); break;
    default: SCAN(3);
    }
}
