/* Constant-current STM images of a rough surface under an apex of several atoms; see physics/stm.py for the equations.
 *
 * Lengths in nm, times in s. Every lane is computed by itself, so an image does not depend on the batch.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "random.h"

#define ATOMS 16
#define WIDEST 256
#define BUMPS 1024
#define EDGES 64
#define ISLANDS 64
#define REACH 4.0   /* apex atoms lie this close to the axis of the tip */
#define ALIGNED __attribute__((aligned(64)))

/* One row an episode, in the order of stm_surfaces.FIELDS. */
typedef struct {
    double step_height, terrace_width, direction, meander, meander_period, adatom_density, adatom_height, cluster_density, cluster_height,
        cluster_radius, adsorbate_density, adsorbate_depth, island_density, island_radius, reconstruction;
} Surface;

typedef struct { float x, y, height, width; } Bump;
typedef struct { float x, y, radius; } Island;

typedef struct {
    const Surface *surface;
    float cosine, sine;
    int bumps, edges, islands, first_edge;
    Bump bump[BUMPS];
    float edge[EDGES];
    Island island[ISLANDS];
    float relief; /* largest difference of height in view, about */
} Scene;

static inline double hashed(uint64_t key, int64_t i, int64_t j, int n)
{
    return unit(mix(mix(mix(key + GOLDEN * (uint64_t)i) + 0xd1342543de82ef95ull * (uint64_t)j) + GOLDEN * (uint64_t)(n + 1)));
}

static void add_bump(Scene *s, double x, double y, double height, double width)
{
    if (s->bumps == BUMPS) return;
    s->bump[s->bumps++] = (Bump){(float)x, (float)y, (float)height, (float)width};
    if (fabs(height) > s->relief) s->relief = (float)fabs(height);
}

/* At most one feature a cell: density * cell^2 must stay below one. */
static void scatter(Scene *s, uint64_t key, const double low[2], const double high[2], double cell, double density, int kind)
{
    const Surface *p = s->surface;
    double chance = density * cell * cell;
    if (chance <= 0) return;
    for (int64_t j = (int64_t)floor(low[1] / cell); j <= (int64_t)floor(high[1] / cell); j++)
        for (int64_t i = (int64_t)floor(low[0] / cell); i <= (int64_t)floor(high[0] / cell); i++) {
            int n = 8 * kind;
            if (hashed(key, i, j, n) >= chance) continue;
            double x = (i + hashed(key, i, j, n + 1)) * cell, y = (j + hashed(key, i, j, n + 2)) * cell, u = hashed(key, i, j, n + 3);
            double v = hashed(key, i, j, n + 4);
            if (kind == 0) add_bump(s, x, y, p->adatom_height * (0.9 + 0.2 * u), 0);
            if (kind == 1) add_bump(s, x, y, p->cluster_height * (0.5 + u), p->cluster_radius * (0.5 + v));
            if (kind == 2) add_bump(s, x, y, -p->adsorbate_depth * (0.8 + 0.4 * u), 0.1);
            if (kind == 3 && s->islands < ISLANDS) s->island[s->islands++] = (Island){(float)x, (float)y, (float)(p->island_radius * (0.5 + u))};
        }
}

static void look(Scene *s, const Surface *p, uint64_t key, const double centre[2], double half, const double *placed, int placed_count)
{
    double far = half + REACH + 3;
    double low[2] = {centre[0] - far, centre[1] - far}, high[2] = {centre[0] + far, centre[1] + far};
    s->surface = p, s->bumps = s->edges = s->islands = 0, s->relief = 0;
    s->cosine = (float)cos(p->direction), s->sine = (float)sin(p->direction);
    scatter(s, key, low, high, 2.0, p->adatom_density, 0);
    scatter(s, key, low, high, 4.0, p->cluster_density, 1);
    scatter(s, key, low, high, 2.0, p->adsorbate_density, 2);
    scatter(s, key, low, high, 16.0, p->island_density, 3);
    for (int n = 0; n < placed_count; n++) {
        const double *b = placed + 4 * n, reach = far + 4 * b[3];
        if (b[2] && fabs(b[0] - centre[0]) < reach && fabs(b[1] - centre[1]) < reach) add_bump(s, b[0], b[1], b[2], b[3]);
    }
    double w = p->terrace_width, middle = centre[0] * s->cosine + centre[1] * s->sine, span = 1.42 * far + fabs(p->meander);
    int64_t n = w > 0 ? (int64_t)floor((middle - span) / w) - 1 : 0;
    s->first_edge = 0;
    for (int turn = 0; w > 0 && turn < EDGES + 4; turn++, n++) { /* at most three lie before the first in view */
        double edge = (n + 0.6 * (hashed(key, n, 0, 64) - 0.5)) * w;
        if (edge > middle + span || s->edges == EDGES) break;
        if (edge < middle - span) s->first_edge = (int)n + 1;
        else s->edge[s->edges++] = (float)edge;
    }
    s->relief += (float)(p->step_height * (s->edges + (s->islands > 0)));
}

/* Height under one apex atom along a row: n points from (x0, y), spaced by pixel. sigma2: squared width of a point feature. */
static void profile(const Scene *s, float x0, float y, float pixel, int n, float sigma2, float *height)
{
    const Surface *p = s->surface;
    float base = (float)(p->step_height * s->first_edge), sharp = 1.7f / sqrtf(sigma2), step = (float)p->step_height;
    float across[WIDEST] ALIGNED;
    for (int c = 0; c < n; c++) height[c] = base;
    if (s->edges) {
        float wave = (float)(2 * M_PI / p->meander_period), meander = (float)p->meander;
        for (int c = 0; c < n; c++) {
            float x = x0 + c * pixel;
            across[c] = x * s->cosine + y * s->sine + meander * sinf(wave * (y * s->cosine - x * s->sine));
        }
        for (int e = 0; e < s->edges; e++)
            for (int c = 0; c < n; c++) height[c] += step / (1 + expf(fminf(60, sharp * (s->edge[e] - across[c]))));
    }
    for (int k = 0; k < s->islands; k++) {
        const Island *i = s->island + k;
        float dy = y - i->y;
        if (fabsf(dy) > i->radius + 1) continue;
        for (int c = 0; c < n; c++) {
            float dx = x0 + c * pixel - i->x;
            height[c] -= step / (1 + expf(fminf(60, sharp * (sqrtf(dx * dx + dy * dy) - i->radius))));
        }
    }
    if (p->reconstruction) { /* 22 x sqrt 3: pairs of ridges 6.3 nm apart whose direction turns every 12 nm */
        float a = (float)p->reconstruction, turn = 2 * (float)M_PI;
        for (int c = 0; c < n; c++) {
            float x = x0 + c * pixel, v = (y * s->cosine - x * s->sine) / 25.0f, fold = v - floorf(v);
            float u = (x * s->cosine + y * s->sine + 14.4f * fabsf(fold - 0.5f)) / 6.3f;
            height[c] += a * (expf(6 * (cosf(turn * (u - 0.19f)) - 1)) + expf(6 * (cosf(turn * (u + 0.19f)) - 1)));
        }
    }
    for (int k = 0; k < s->bumps; k++) {
        const Bump *b = s->bump + k;
        float variance = sigma2 + b->width * b->width, reach = 4 * sqrtf(variance), dy = y - b->y;
        if (fabsf(dy) > reach) continue;
        int from = (int)ceilf((b->x - reach - x0) / pixel), to = (int)floorf((b->x + reach - x0) / pixel);
        from = from < 0 ? 0 : from, to = to > n - 1 ? n - 1 : to;
        float scale = -0.5f / variance;
        for (int c = from; c <= to; c++) {
            float dx = x0 + c * pixel - b->x;
            height[c] += b->height * expf(scale * (dx * dx + dy * dy));
        }
    }
}

/* Constant-current height z of one row: sum_a exp(-decay_a (z - target_a)) = ratio; and the decay that a change of z sees. */
static void solve(int atoms, int n, const float *decay, float target[][WIDEST], float ratio, float *z, float *seen)
{
    float total[WIDEST] ALIGNED, weighted[WIDEST] ALIGNED, goal = logf(ratio);
    for (int c = 0; c < n; c++) z[c] = target[0][c], seen[c] = decay[0];
    for (int a = 1; a < atoms; a++)
        for (int c = 0; c < n; c++) z[c] = fmaxf(z[c], target[a][c]);
    if (atoms == 1) {
        for (int c = 0; c < n; c++) z[c] -= goal / decay[0];
        return;
    }
    for (int turn = 0; turn < 4; turn++) { /* Newton on the logarithm of the current, which is convex in z */
        memset(total, 0, sizeof total), memset(weighted, 0, sizeof weighted);
        for (int a = 0; a < atoms; a++)
            for (int c = 0; c < n; c++) {
                float share = expf(fmaxf(-60, decay[a] * (target[a][c] - z[c])));
                total[c] += share, weighted[c] += decay[a] * share;
            }
        for (int c = 0; c < n; c++) {
            seen[c] = weighted[c] / total[c];
            z[c] += (logf(total[c]) - goal) / seen[c];
        }
    }
}

/* n standard normal numbers (Box & Muller 1958, 10.1214/aoms/1177706645). */
static void normals(uint64_t key, int n, float *out)
{
    float radius[WIDEST / 2] ALIGNED, angle[WIDEST / 2] ALIGNED;
    int half = (n + 1) / 2;
    for (int i = 0; i < half; i++) {
        uint64_t bits = mix(key + GOLDEN * (uint64_t)(i + 1));
        radius[i] = ((float)(bits >> 40) + 0.5f) * 0x1.0p-24f;
        angle[i] = (float)(bits & 0xffffff) * (float)(2 * M_PI * 0x1.0p-24);
    }
    for (int i = 0; i < half; i++) radius[i] = sqrtf(-2 * logf(radius[i]));
    for (int i = 0; i < half; i++) out[i] = radius[i] * cosf(angle[i]);
    for (int i = half; i < n; i++) out[i] = radius[i - half] * sinf(angle[i - half]);
}

/* The height of the bare surface, as an atom with features of variance sigma2 would follow it: (rows, columns) of one lane. */
void heights(int rows, int columns, double pixel, double sigma2, const double *centre, const double *surface, const uint64_t *key,
             int placed_count, const double *placed, float *out)
{
    static __thread Scene scene;
    float row[WIDEST] ALIGNED;
    double half = 0.5 * pixel * (columns > rows ? columns : rows);
    look(&scene, (const Surface *)surface, *key, centre, half, placed, placed_count);
    for (int r = 0; r < rows; r++) {
        float x0 = (float)(centre[0] - 0.5 * pixel * (columns - 1)), y = (float)(centre[1] + pixel * (r - 0.5 * (rows - 1)));
        profile(&scene, x0, y, (float)pixel, columns, (float)sigma2, row);
        memcpy(out + (size_t)r * columns, row, sizeof(float) * columns);
    }
}

/* Images of a batch.
 *
 * atoms: (lanes, 2, atom_count, 4) x, y, retraction, 2 kappa, of the apex before and after switch_row.
 * jump: (lanes) change of the tip's length at switch_row. loose: (lanes, 2, 3) atom, chance of a hop between pixels, amplitude.
 * noise: (lanes, 4) relative current noise, height noise, line noise, feedback 2 pi f dt of a clean apex. line_time: s.
 * extent: distance of the nuclei at the setpoint, which sets how wide a point feature appears. out: nm.
 */
void topographs(int lanes, int rows, int columns, double pixel, double line_time, double extent, double reference, double ratio,
                const double *centre, const double *velocity, const double *surface, const uint64_t *surface_key, int atom_count,
                const double *atoms, const int32_t *switch_row, const double *jump, const double *loose, const double *noise,
                const uint64_t *noise_key, int placed_count, const double *placed, float *out)
{
    static __thread Scene scene;
    static __thread float target[ATOMS][WIDEST] ALIGNED;
    float z[2][WIDEST] ALIGNED, seen[2][WIDEST] ALIGNED, normal[WIDEST] ALIGNED, gain[WIDEST] ALIGNED, kept[WIDEST] ALIGNED;
    double half = 0.5 * pixel * (columns > rows ? columns : rows);
    for (int l = 0; l < lanes; l++) {
        look(&scene, (const Surface *)surface + l, surface_key[l], centre + 2 * l, half, placed + (size_t)l * placed_count * 4, placed_count);
        int hopped = 0;
        float offset = 0, noise_current = (float)noise[4 * l], noise_height = (float)noise[4 * l + 1], bandwidth = (float)(noise[4 * l + 3] / reference);
        for (int r = 0; r < rows; r++) {
            int after = r >= switch_row[l];
            const double *apex = atoms + (size_t)(2 * l + after) * atom_count * 4, *hop = loose + 3 * (2 * l + after);
            float x0 = (float)(centre[2 * l] - 0.5 * pixel * (columns - 1) + velocity[2 * l] * r * line_time);
            float y = (float)(centre[2 * l + 1] + pixel * (r - 0.5 * (rows - 1)) + velocity[2 * l + 1] * r * line_time);
            float decay[ATOMS];
            int active = 0, flickering = -1;
            for (int a = 0; a < atom_count; a++) {
                const double *atom = apex + 4 * a;
                if (atom[2] > scene.relief + 0.4) continue; /* less than a thousandth of the current anywhere */
                decay[active] = (float)atom[3];
                profile(&scene, x0 + (float)atom[0], y + (float)atom[1], (float)pixel, columns, (float)(extent / atom[3]), target[active]);
                for (int c = 0; c < columns; c++) target[active][c] -= (float)atom[2];
                if (hop[1] > 0 && a == (int)hop[0]) flickering = active;
                active++;
            }
            solve(active, columns, decay, target, (float)ratio, z[0], seen[0]);
            uint64_t key = mix(noise_key[l] + GOLDEN * (uint64_t)(r + 1));
            if (flickering >= 0) {
                for (int c = 0; c < columns; c++) target[flickering][c] += (float)hop[2];
                solve(active, columns, decay, target, (float)ratio, z[1], seen[1]);
                double away = 0.5 * (1 - pow(1 - 2 * fmin(hop[1], 0.499), columns)); /* odd number of hops on the way back */
                if (unit(mix(key ^ 0xa5a5a5a5ull)) < away) hopped = !hopped;
                for (int c = 0; c < columns; c++) {
                    if (unit(mix(key + 0x632be59bd9b4e019ull * (uint64_t)(c + 1))) < hop[1]) hopped = !hopped;
                    if (hopped) z[0][c] = z[1][c], seen[0][c] = seen[1][c];
                }
            }
            normals(key, columns, normal);
            for (int c = 0; c < columns; c++) {
                float electronic = noise_current / seen[0][c];
                z[0][c] += normal[c] * sqrtf(electronic * electronic + noise_height * noise_height);
                gain[c] = 1 - expf(-bandwidth * seen[0][c]);
            }
            float line[2] ALIGNED;
            normals(mix(key + 1), 2, line);
            offset = 0.9f * offset + (float)noise[4 * l + 2] * line[0];
            float follow = z[0][0], shift = offset + (after ? (float)jump[l] : 0);
            for (int c = 0; c < columns; c++) {
                follow += gain[c] * (z[0][c] - follow);
                kept[c] = follow + shift;
            }
            memcpy(out + ((size_t)l * rows + r) * columns, kept, sizeof(float) * columns);
        }
    }
}
