#include <math.h>

/* cos and sin of 2 pi t: half-angle Taylor series (|pi t| <= pi/2, error < 3e-7), free of calls so that it vectorises */
static inline __attribute__((always_inline)) void turn(float t, float *c, float *s)
{
    float x = 3.14159265358979f * (t - rintf(t)), y = x * x;
    float sine = x * (1 + y * (-1.6666667e-1f + y * (8.3333333e-3f + y * (-1.9841270e-4f + y * (2.7557319e-6f - y * 2.5052108e-8f)))));
    float cosine = 1 + y * (-0.5f + y * (4.1666667e-2f + y * (-1.3888889e-3f + y * (2.4801587e-5f + y * (-2.7557319e-7f + y * 2.0876757e-9f)))));
    *c = 1 - 2 * sine * sine;
    *s = 2 * sine * cosine;
}
