/* What the reference (cantilever.c, real = double) and the averaged model (tapping.c, real = float) of the tapping mode
   share: parameters, state, demodulator, PI feedback, Z piezo. Units: nm, nN, s, rad/s. */
#include <math.h>
#include <stdint.h>

#ifndef real
#define root sqrt
#define real double
#endif

#define CONTACT ((real)0.165)
#define ALWAYS static inline __attribute__((always_inline))

enum { STIFFNESS, STATIC_STIFFNESS, QUALITY, FREQUENCY, DETUNING, DRIVE, BASE, RADIUS, ELECTRIC, NECK_FORCE, NECK_ON, NECK_OFF,
       THERMAL, SENSOR, DEMODULATOR, SETPOINT, PROPORTIONAL, INTEGRAL_GAIN, FEED_FORWARD, PIEZO_FREQUENCY, PIEZO_QUALITY, RANGE,
       CREEP, RELAY, PARAMETERS };
enum { A_RE, A_IM, DEFLECTION, I_SEEN, Q_SEEN, INTEGRAL, CARRY, Z, Z_SPEED, CREEP_1, CREEP_2, CREEP_3, STATES };
enum { OUT_HEIGHT, OUT_I, OUT_Q, OUT_PEAK, OUT_RAIL, CHANNELS };

typedef struct { real z, zv, vz, vv; } piezo; /* propagator of (z - target, speed) over one control step */

/* A piezo frequency of 0 follows at once. */
static void piezo_set(piezo *c, double frequency, double quality, double T)
{
    *c = (piezo){0, 0, 0, 0};
    if (frequency <= 0) return;
    double g = frequency / (2 * quality), wd = sqrt(frequency * frequency - g * g), e = exp(-g * T), cs = cos(wd * T), sn = sin(wd * T);
    c->z = e * (cs + g / wd * sn), c->zv = e * sn / wd, c->vz = -e * frequency * frequency / wd * sn, c->vv = e * (cs - g / wd * sn);
}

/* Filter the lock-in's quadratures, then PI + feed-forward (+ a relay, to test the loop), then the piezo. All pointers are to locals of one lane. */
ALWAYS void control(real a_re, real a_im, real filter, real setpoint, real proportional, real gain_T, real forward, real range,
                    real creep, real pz, real pzv, real pvz, real pvv, real *seen_i, real *seen_q, real *integral, real *carry,
                    real relay, real *z, real *speed, real *command, real *rail)
{
    *seen_i += filter * (a_re - *seen_i), *seen_q += filter * (a_im - *seen_q);
    real error = setpoint - root(*seen_i * *seen_i + *seen_q * *seen_q);
    real more = gain_T * error + *carry, sum = *integral + more; /* compensated: the steps are far below the last digit of float */
    real wanted = proportional * error + sum + forward + (error > 0 ? relay : -relay);
    real u = wanted > range ? range : wanted < -range ? -range : wanted;
    int free = u == wanted;
    *carry = free ? more - (sum - *integral) : 0;
    *integral = free ? sum : *integral; /* the integrator waits at the end of the range */
    *rail += free ? 0 : 1;
    *command = u;
    real away = *z - (u + creep), v = *speed;
    *z = u + creep + pz * away + pzv * v, *speed = pvz * away + pvv * v;
}

/* Creep of a piezo: a tenth of a decade's worth of slow relaxations (log creep, gamma per decade of time). */
static const double CREEP_TIMES[3] = {0.3, 3.0, 30.0};
