/* What a tip touches along a scan line: grey dilation (Villarrubia, J. Res. NIST 102, 425 (1997), 10.6028/jres.102.030). */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 64 /* columns that share one bound on where contact can come from */

/* A sphere of this radius that goes over tangentially into a cone. */
typedef struct { double radius, edge, edge_height, slope; } Apex;

/* A map, its pixel in metres, and its highest point. */
typedef struct { const float *height; int rows, columns; double dy, dx; float top; } Map;

static Apex apex(double radius, double half_angle)
{
    Apex a = {radius, radius * cos(half_angle), radius * (1 - sin(half_angle)), 1 / tan(half_angle)};
    return a;
}

/* height of the tip's flank above the apex at the distance sqrt(square) from the axis */
static double profile(const Apex *a, double square)
{
    if (square <= a->edge * a->edge) return square / (a->radius + sqrt(a->radius * a->radius - square));
    return a->edge_height + (sqrt(square) - a->edge) * a->slope;
}

static double reach(const Apex *a, double depth)
{
    if (depth <= a->edge_height) return sqrt(depth * (2 * a->radius - depth));
    return a->edge + (depth - a->edge_height) / a->slope;
}

/* index of the pixel that is seen at index i of the map continued by its mirror images */
static inline int mirrored(int64_t i, int n)
{
    i %= 2 * n;
    if (i < 0) i += 2 * n;
    return (int)(i < n ? i : 2 * n - 1 - i);
}

static void copy_row(const Map *map, int64_t row, int64_t first, int count, float *out)
{
    const float *in = map->height + (int64_t)mirrored(row, map->rows) * map->columns;
    if (first >= 0 && first + count <= map->columns) { memcpy(out, in + first, sizeof(float) * count); return; }
    for (int i = 0; i < count; i++) out[i] = in[mirrored(first + i, map->columns)];
}

/* Dilates count <= BLOCK pixels of a row from column first on. contact: flat index of the touched pixel.
 * An offset of the window can only win if the highest point it meets stands above the lowest value found so far. */
static int dilate_block(const Map *map, const Apex *a, int64_t row, int64_t first, int count, float *out, int32_t *contact)
{
    copy_row(map, row, first, count, out);
    float low = out[0];
    for (int i = 1; i < count; i++) low = out[i] < low ? out[i] : low;
    double range = map->top > low ? reach(a, (double)map->top - low) : 0;
    int wy = (int)fmin(range / map->dy, 2.0 * map->rows), wx = (int)fmin(range / map->dx, 2.0 * map->columns);
    int width = 2 * wx + 1, across = count + 2 * wx;
    float *strip = malloc(sizeof(float) * across);
    if (!strip) return 1;
    int32_t code[BLOCK]; /* the winning offset */
    for (int i = 0; i < count; i++) code[i] = wy * width + wx;
    for (int k = 0; k <= 2 * wy; k++) { /* rows 0, +1, -1, +2, ... : near ones raise the bound for the far ones */
        int v = k & 1 ? (k + 1) / 2 : -k / 2;
        double across_y = v * map->dy, left = range * range - across_y * across_y;
        int u_most = left > 0 ? (int)fmin(sqrt(left) / map->dx, wx) : 0;
        copy_row(map, row + v, first - u_most, count + 2 * u_most, strip);
        float high = strip[0];
        for (int i = 1; i < count + 2 * u_most; i++) high = strip[i] > high ? strip[i] : high;
        for (int j = 0; j <= 2 * u_most; j++) {
            int u = j & 1 ? (j + 1) / 2 : -j / 2;
            float flank = (float)profile(a, across_y * across_y + u * map->dx * (u * map->dx));
            if (high - flank <= low) break; /* the flank only rises with |u| */
            const float *from = strip + u_most + u;
            int32_t this = (v + wy) * width + u + wx;
            for (int i = 0; i < count; i++) {
                float z = from[i] - flank;
                code[i] = z > out[i] ? this : code[i];
                out[i] = z > out[i] ? z : out[i];
            }
        }
        low = out[0];
        for (int i = 1; i < count; i++) low = out[i] < low ? out[i] : low;
    }
    for (int i = 0; i < count; i++)
        contact[i] = mirrored(row + code[i] / width - wy, map->rows) * map->columns + mirrored(first + i + code[i] % width - wx, map->columns);
    free(strip);
    return 0;
}

/* One apex along one line; y, x in pixels, step in pixels. Between pixels the dilated heights are interpolated. */
static int line(const Map *map, const Apex *a, double y, double x, double step, int points, float *heights, int32_t *contact)
{
    double end = x + step * (points - 1), row = floor(y), fy = y - row;
    int64_t first = (int64_t)floor(end < x ? end : x), last = (int64_t)floor(end < x ? x : end) + 1;
    int count = (int)(last - first + 1), failed = 0, two = fy > 0;
    float *dilated = malloc(sizeof(float) * 2 * count);
    int32_t *from = malloc(sizeof(int32_t) * 2 * count);
    failed = !dilated || !from;
    for (int r = 0; r <= two && !failed; r++)
        for (int at = 0; at < count && !failed; at += BLOCK)
            failed = dilate_block(map, a, (int64_t)row + r, first + at, count - at < BLOCK ? count - at : BLOCK, dilated + r * count + at,
                                  from + r * count + at);
    for (int i = 0; i < points && !failed; i++) {
        double at = x + step * i - first;
        int c = (int)at < count - 1 ? (int)at : count - 2;
        double fx = at - c, height = dilated[c] + fx * ((double)dilated[c + 1] - dilated[c]);
        if (two) {
            const float *below = dilated + count + c;
            height += fy * (below[0] + fx * ((double)below[1] - below[0]) - height);
        }
        heights[i] = (float)height;
        contact[i] = from[(fy >= 0.5) * count + c + (fx >= 0.5)];
    }
    free(dilated);
    free(from);
    return failed;
}

/* Lines of a batch. maps (maps, rows, columns), tops (maps,), which (lanes,); start (lanes, 3): y, x, step in metres, pixel
 * centres at (i + 1/2) pixels; tip (lanes, 6): radius, half angle, then dx, dy, dz and radius of a second apex (0: none).
 * heights, contact (lanes, points). Returns 1 when memory runs out. */
int dilate_lines(int lanes, int rows, int columns, int points, double dy, double dx, const float *maps, const float *tops, const int32_t *which,
                 const double *start, const double *tip, float *heights, int32_t *contact)
{
    float *other = malloc(sizeof(float) * points);
    int32_t *touched = malloc(sizeof(int32_t) * points);
    int failed = !other || !touched;
    for (int l = 0; l < lanes && !failed; l++) {
        Map map = {maps + (int64_t)which[l] * rows * columns, rows, columns, dy, dx, tops[which[l]]};
        const double *s = start + 3 * l, *t = tip + 6 * l;
        double y = s[0] / dy - 0.5, x = s[1] / dx - 0.5, step = s[2] / dx;
        float *z = heights + (int64_t)l * points;
        int32_t *c = contact + (int64_t)l * points;
        Apex a = apex(t[0], t[1]);
        failed = line(&map, &a, y, x, step, points, z, c);
        if (t[5] <= 0 || failed) continue;
        a = apex(t[5], t[1]);
        failed = line(&map, &a, y + t[3] / dy, x + t[2] / dx, step, points, other, touched);
        for (int i = 0; i < points; i++) {
            float shifted = other[i] - (float)t[4];
            c[i] = shifted > z[i] ? touched[i] : c[i];
            z[i] = shifted > z[i] ? shifted : z[i];
        }
    }
    free(other);
    free(touched);
    return failed;
}
