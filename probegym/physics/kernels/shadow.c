/* Shadows of a film: where each ray of a square camera crosses it, and what it lets through there (physics/shadow.py). */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct {
    int32_t gpts, pixels, samples, coefficients; /* gpts: a power of two */
    const float *basis;                          /* (2, coefficients, rays): grid points a ray is thrown by one metre of each */
} Camera;

static inline float through(const float *film, int gpts, float x, float y)
{
    int mask = gpts - 1;
    float low_x = floorf(x), low_y = floorf(y), fx = x - low_x, fy = y - low_y;
    int i = (int)low_x & mask, j = (int)low_y & mask, right = (i + 1) & mask, up = (j + 1) & mask;
    const float *here = film + (int64_t)i * gpts, *there = film + (int64_t)right * gpts;
    return (here[j] * (1 - fx) + there[j] * fx) * (1 - fy) + (here[up] * (1 - fx) + there[up] * fx) * fy;
}

/* coefficients: (lanes, n) m; places: (lanes, 2) grid points; turns: (lanes, 4), row-major, how the film lies; frames: (lanes, pixels, pixels). */
int shadows(const Camera *c, int lanes, const float *coefficients, const float *places, const float *turns, const float *const *films, float *frames)
{
    int side = c->pixels * c->samples;
    int64_t rays = (int64_t)side * side;
    float *x = malloc(sizeof(float) * 2 * side), *y = x + side;
    if (!x) return 1;
    float share = 1.0f / ((float)rays);
    for (int lane = 0; lane < lanes; lane++) {
        const float *a = coefficients + (int64_t)lane * c->coefficients, *turn = turns + 4 * lane;
        float *frame = frames + (int64_t)lane * c->pixels * c->pixels;
        for (int p = 0; p < c->pixels * c->pixels; p++) frame[p] = 0;
        for (int row = 0; row < side; row++) {
            for (int s = 0; s < side; s++) { x[s] = places[2 * lane]; y[s] = places[2 * lane + 1]; }
            for (int n = 0; n < c->coefficients; n++) {
                const float *bx = c->basis + n * rays + (int64_t)row * side, *by = bx + c->coefficients * rays;
                for (int s = 0; s < side; s++) { x[s] += a[n] * bx[s]; y[s] += a[n] * by[s]; }
            }
            float *pixel = frame + (row / c->samples) * c->pixels;
            for (int s = 0; s < side; s++)
                pixel[s / c->samples] += share * through(films[lane], c->gpts, turn[0] * x[s] + turn[1] * y[s], turn[2] * x[s] + turn[3] * y[s]);
        }
    }
    free(x);
    return 0;
}
