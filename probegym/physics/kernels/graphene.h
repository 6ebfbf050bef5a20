/* The honeycomb lattice without end: sites (i, j, sublattice), their places and neighbours. SI units. */
#include <math.h>
#include <stdint.h>

#define BOND 1.42e-10
#define LATTICE (BOND * 1.7320508075688772)
#define SITE_AREA (0.5 * LATTICE * LATTICE * 0.8660254037844386)

typedef struct { int32_t i, j, s, there; } Site;
typedef struct { double cosine, sine, x, y; } Frame;
typedef struct { double x, y, radius; } Cluster; /* radius 0: none */
typedef struct { double x, y; } Point;

static inline Point place(const Frame *f, const Site *a)
{
    double u = LATTICE * (a->i + 0.5 * a->j), v = LATTICE * 0.8660254037844386 * a->j;
    if (a->s) u += 0.5 * LATTICE, v += 0.5 * BOND;
    return (Point){f->x + f->cosine * u - f->sine * v, f->y + f->sine * u + f->cosine * v};
}

/* The m-th of three neighbours. */
static inline Site neighbour(const Site *a, int m)
{
    Site n = {a->i, a->j, !a->s, 1};
    int step = a->s ? 1 : -1;
    if (m == 1) n.i += step;
    if (m == 2) n.j += step;
    return n;
}

static inline int same(const Site *a, const Site *b) { return a->there && b->there && a->i == b->i && a->j == b->j && a->s == b->s; }

static inline int listed(const Site *list, int n, const Site *a)
{
    for (int k = 0; k < n; k++)
        if (same(list + k, a)) return 1;
    return 0;
}

static inline Site nearest(const Frame *f, double x, double y)
{
    double dx = x - f->x, dy = y - f->y, u = f->cosine * dx + f->sine * dy, v = f->cosine * dy - f->sine * dx;
    int j0 = (int)floor(v / (LATTICE * 0.8660254037844386)), i0 = (int)floor(u / LATTICE - 0.5 * j0);
    Site best = {i0, j0, 0, 1};
    double least = 1;
    for (int j = j0 - 1; j <= j0 + 1; j++)
        for (int i = i0 - 1; i <= i0 + 2; i++)
            for (int s = 0; s < 2; s++) {
                Site a = {i, j, s, 1};
                Point p = place(f, &a);
                double d = (p.x - x) * (p.x - x) + (p.y - y) * (p.y - y);
                if (d < least) least = d, best = a;
            }
    return best;
}
