/* Reference of the tapping mode: the equation of motion of every mode, integrated in time.

   Between kicks of the tip force the damped, driven modes are propagated exactly (Strang splitting). Lock-in over each
   cycle, first-order filter, PI feedback, resonant Z piezo with creep, all as in tapping.c. Units: nm, nN, s.
*/
#include <math.h>
#include <stdint.h>
#include "tapping.h"

#define MODES 4

typedef struct { double q[MODES], v[MODES], peak; int neck; } motion;

/* Positive away from the sample. */
static double tip_force(const double *p, double hamaker, double modulus, double viscosity, double gap, double velocity, int *neck)
{
    double apart = gap > CONTACT ? gap : CONTACT, pressed = gap < CONTACT ? CONTACT - gap : 0, radius = p[RADIUS];
    *neck = gap < p[NECK_ON] || (*neck && gap < p[NECK_OFF]);
    double f = -hamaker * radius / (6 * apart * apart) - p[ELECTRIC] * radius / apart - (*neck ? p[NECK_FORCE] : 0);
    if (pressed > 0)
        f += (4.0 / 3) * modulus * sqrt(radius * pressed) * pressed - viscosity * velocity * sqrt(radius * pressed);
    return f;
}

/* One lane, one way along a line. p: parameters (PARAMETERS), s: state (STATES), m: modes (count, 4: frequency over the first,
   quality, inverse stiffness 1/k_n, weight of the drive), cells of height and material; out: (cells, CHANNELS).
   steps: per cycle; cycles: per control step. Returns 0, or 1 when the motion diverged. */
int scan_direct(int cells, int modes, int steps, int cycles, int control_steps, const double *p, const double *m, double *s, double *motion_state,
                const double *height, const double *hamaker, const double *modulus, const double *viscosity, const double *forward, double *out)
{
    double w0 = p[FREQUENCY], w = w0 * p[DETUNING], dt = 2 * M_PI / (w * steps), c[MODES][4], im[MODES], drive[MODES];
    motion t;
    t.neck = 0;
    for (int i = 0; i < modes; i++) {
        double wn = w0 * m[4 * i], g = wn / (2 * m[4 * i + 1]), wd = sqrt(wn * wn - g * g);
        double e = exp(-g * dt), cs = cos(wd * dt), sn = sin(wd * dt);
        c[i][0] = e * (cs + g / wd * sn), c[i][1] = e * sn / wd, c[i][2] = -e * wn * wn / wd * sn, c[i][3] = e * (cs - g / wd * sn);
        im[i] = wn * wn * m[4 * i + 2];
        drive[i] = p[DRIVE] * m[4 * i + 3];
        t.q[i] = motion_state[2 * i], t.v[i] = motion_state[2 * i + 1];
    }
    double T = 2 * M_PI / w * cycles, filter = 1 - exp(-p[DEMODULATOR] * T), last = height[0];
    piezo z;
    piezo_set(&z, p[PIEZO_FREQUENCY], p[PIEZO_QUALITY], T);
    for (int cell = 0; cell < cells; cell++) {
        double h0 = last, h1 = height[cell], sums[CHANNELS] = {0}, command = 0, rail = 0;
        t.peak = 0;
        for (int k = 0; k < control_steps; k++) {
            double h = h0 + (h1 - h0) * (k + 0.5) / control_steps, I = 0, X = 0;
            for (int n = 0; n < cycles * steps; n++) {
                double phase = 2 * M_PI * (n % steps) / steps, next = 2 * M_PI * ((n + 1) % steps) / steps;
                double gap, speed, f;
                for (int half = 0; half < 2; half++) {
                    double at = half ? next : phase, base = p[BASE] * cos(at);
                    gap = s[Z] - h + base, speed = -p[BASE] * w * sin(at);
                    for (int i = 0; i < modes; i++) gap += t.q[i], speed += t.v[i];
                    f = tip_force(p, hamaker[cell], modulus[cell], viscosity[cell], gap, speed, &t.neck);
                    if (f > t.peak) t.peak = f;
                    for (int i = 0; i < modes; i++) t.v[i] += 0.5 * dt * im[i] * (f + drive[i] * cos(at));
                    if (half) break;
                    for (int i = 0; i < modes; i++) {
                        double q = c[i][0] * t.q[i] + c[i][1] * t.v[i];
                        t.v[i] = c[i][2] * t.q[i] + c[i][3] * t.v[i], t.q[i] = q;
                    }
                }
                double seen = 0;
                for (int i = 0; i < modes; i++) seen += t.q[i];
                I += seen * cos(next), X += seen * sin(next);
            }
            s[A_RE] = 2 * I / (cycles * steps), s[A_IM] = -2 * X / (cycles * steps);
            s[I_SEEN] += filter * (s[A_RE] - s[I_SEEN]), s[Q_SEEN] += filter * (s[A_IM] - s[Q_SEEN]);
            control(s[A_RE], s[A_IM], filter, p[SETPOINT], p[PROPORTIONAL], p[INTEGRAL_GAIN] * T, p[FEED_FORWARD] * forward[cell],
                    p[RANGE], s[CREEP_1] + s[CREEP_2] + s[CREEP_3], z.z, z.zv, z.vz, z.vv, s + I_SEEN, s + Q_SEEN, s + INTEGRAL,
                    s + CARRY, p[RELAY], s + Z, s + Z_SPEED, &command, &rail);
            sums[OUT_HEIGHT] += command, sums[OUT_I] += s[I_SEEN], sums[OUT_Q] += s[Q_SEEN];
            if (!(fabs(t.q[0]) < 1e6)) return 1;
        }
        for (int i = 0; i < 3; i++)
            s[CREEP_1 + i] += (p[CREEP] * command - s[CREEP_1 + i]) * (1 - exp(-control_steps * T / CREEP_TIMES[i]));
        double *o = out + cell * CHANNELS;
        for (int i = OUT_HEIGHT; i <= OUT_Q; i++) o[i] = sums[i] / control_steps;
        o[OUT_PEAK] = t.peak, o[OUT_RAIL] = rail;
        last = h1;
    }
    for (int i = 0; i < modes; i++) motion_state[2 * i] = t.q[i], motion_state[2 * i + 1] = t.v[i];
    return 0;
}
