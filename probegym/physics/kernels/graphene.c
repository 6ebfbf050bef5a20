/* Graphene with silicon under an electron beam, event by event; see physics/graphene.py.
 *
 * SI units. Every lane is computed by itself from its own key. Only what differs from the perfect lattice is stored: silicon
 * atoms, vacancies and clusters of contamination, so the sheet has no edge.
 */
#include <string.h>

#include "graphene.h"
#include "random.h"

#define MOST_SILICON 8
#define MOST_VACANCIES 32
#define MOST_CLUSTERS 8
#define NEAR 4.0e-10     /* carbon further than this from a parked beam is not knocked out */
#define STEP 1.0e-11     /* m that a beam may drift at constant rates */
#define MOST_EVENTS 100000
#define MOST_PROCESSES (7 * MOST_SILICON + 2 * 49 + MOST_VACANCIES + MOST_CLUSTERS + 1)

enum { MIXTURE, SIMPLE, PHYSICAL };
enum { INVERSIONS, CONVERSIONS, EJECTIONS, LOSSES, HEALINGS, CONTAMINATIONS, CLEANINGS, EVENTS };

/* One row an episode; the order of graphene.RATES. */
typedef struct {
    double kind, simple, inversion, ejection, conversion, loss, healing, contamination, radius, cleaning, variance;
} Rates;

/* What the beam does; one row a call: position in the specimen's frame at first, its velocity there, s; half sides of the scanned
 * field (0: parked) and the rate of inversion in it. */
typedef struct { double x, y, vx, vy, seconds, half_x, half_y, scanned; } Beam;

typedef struct {
    const Frame *frame;
    const Rates *rates;
    const double *mixture; /* (gaussians, 4) height, along, across, variance */
    int gaussians;
    const float *probe;    /* (pixels, pixels) 1/m^2, axes x, y */
    int pixels;
    double pixel;
    int silicons, vacancies, clusters;
    Site *silicon, *vacancy;
    Cluster *cluster;
} Sheet;

static int covered(const Sheet *s, Point p)
{
    for (int k = 0; k < s->clusters; k++) {
        const Cluster *c = s->cluster + k;
        if (c->radius > 0 && (p.x - c->x) * (p.x - c->x) + (p.y - c->y) * (p.y - c->y) < c->radius * c->radius) return 1;
    }
    return 0;
}

/* Where a silicon atom sits: on its site, or between it and the first vacancy beside it. folds: 3 or 4. */
static Point seat(const Sheet *s, const Site *a, int *folds)
{
    Point p = place(s->frame, a);
    *folds = 3;
    for (int m = 0; m < 3; m++) {
        Site n = neighbour(a, m);
        if (!listed(s->vacancy, s->vacancies, &n)) continue;
        Point q = place(s->frame, &n);
        *folds = 4;
        return (Point){0.5 * (p.x + q.x), 0.5 * (p.y + q.y)};
    }
    return p;
}

/* Whether a site is next to silicon with three bonds: knocking that carbon out is a conversion and nothing else. */
static int beside(const Sheet *s, const Site *c)
{
    for (int k = 0; k < s->silicons; k++) {
        int folds, next = 0;
        for (int m = 0; m < 3; m++) {
            Site n = neighbour(c, m);
            next |= same(s->silicon + k, &n);
        }
        if (!next) continue;
        seat(s, s->silicon + k, &folds);
        if (folds == 3) return 1;
    }
    return 0;
}

/* Whether a site holds a carbon atom that is free to be ejected. */
static inline int ejectable(const Sheet *s, const Site *c)
{
    return !listed(s->silicon, s->silicons, c) && !listed(s->vacancy, s->vacancies, c) && !beside(s, c);
}

static inline double cubic(const double w[4], const float *v) { return w[0] * v[0] + w[1] * v[1] + w[2] * v[2] + w[3] * v[3]; }

static void weights(double t, double w[4]) /* Catmull-Rom */
{
    w[0] = t * (-0.5 + t * (1 - 0.5 * t)), w[1] = 1 + t * t * (1.5 * t - 2.5), w[2] = t * (0.5 + t * (2 - 1.5 * t)), w[3] = t * t * (0.5 * t - 0.5);
}

/* |psi|^2 (1/m^2) at a place relative to the middle of the probe: a Gaussian, or the table. */
static double density(const Sheet *s, double x, double y)
{
    double variance = s->rates->variance;
    if (variance > 0) return exp(-0.5 * (x * x + y * y) / variance) / (2 * M_PI * variance);
    double u = x / s->pixel + s->pixels / 2, v = y / s->pixel + s->pixels / 2, wu[4], wv[4], total = 0;
    if (!(u >= 1 && u < s->pixels - 2 && v >= 1 && v < s->pixels - 2)) return 0;
    int i = (int)u, j = (int)v;
    weights(u - i, wu), weights(v - j, wv);
    for (int k = 0; k < 4; k++) total += wu[k] * cubic(wv, s->probe + (size_t)(i - 1 + k) * s->pixels + j - 1);
    return total > 0 ? total : 0;
}

/* Rate of the swap with a neighbour in direction (ux, uy); (x, y): beam from the silicon atom, in bonds. */
static double inversion(const Sheet *s, double x, double y, double ux, double uy)
{
    const Rates *r = s->rates;
    if (r->kind == PHYSICAL) return r->inversion * density(s, BOND * (ux - x), BOND * (uy - y));
    if (r->kind == SIMPLE) return r->simple / (1 + 16 * ((x - ux) * (x - ux) + (y - uy) * (y - uy)));
    double along = x * ux + y * uy, across = y * ux - x * uy, rate = 0;
    for (int g = 0; g < s->gaussians; g++) {
        const double *m = s->mixture + 4 * g;
        if (m[0] > 0) rate += m[0] * exp(-0.5 * ((along - m[1]) * (along - m[1]) + (across - m[2]) * (across - m[2])) / m[3]);
    }
    return rate;
}

typedef struct { double rate; int kind, index; Site site; } Process;

static int in_field(const Beam *b, Point p) { return fabs(p.x - b->x) <= b->half_x && fabs(p.y - b->y) <= b->half_y; }

static int room(const Sheet *s)
{
    int used = 0;
    for (int k = 0; k < s->vacancies; k++) used += s->vacancy[k].there;
    return used < s->vacancies;
}

static void vacate(Sheet *s, Site site)
{
    for (int k = 0; k < s->vacancies; k++)
        if (!s->vacancy[k].there) {
            s->vacancy[k] = site, s->vacancy[k].there = 1;
            return;
        }
}

static inline void add(Process *list, int *n, double rate, int kind, int index, Site site)
{
    if (rate > 0) list[(*n)++] = (Process){rate, kind, index, site};
}

/* All that may happen now. */
static int processes(const Sheet *s, const Beam *b, Process *list)
{
    const Rates *r = s->rates;
    Site none = {0};
    int n = 0, scan = b->half_x > 0, free_vacancy = r->ejection + r->conversion + r->loss > 0 && room(s);
    double spread = scan ? 1 / (4 * b->half_x * b->half_y) : 0;
    for (int k = 0; k < s->silicons; k++) {
        Site *a = s->silicon + k;
        if (!a->there) continue;
        int folds;
        Point p = seat(s, a, &folds);
        if (covered(s, p) || (scan && !in_field(b, p))) continue;
        double x = (b->x - p.x) / BOND, y = (b->y - p.y) / BOND;
        for (int m = 0; m < 3 && folds == 3; m++) {
            Site c = neighbour(a, m);
            if (listed(s->silicon, s->silicons, &c)) continue;
            Point q = place(s->frame, &c);
            if (covered(s, q)) continue;
            add(list, &n, scan ? b->scanned : inversion(s, x, y, (q.x - p.x) / BOND, (q.y - p.y) / BOND), INVERSIONS, k, c);
            if (free_vacancy && r->conversion > 0)
                add(list, &n, r->conversion * (scan ? spread : density(s, q.x - b->x, q.y - b->y)), CONVERSIONS, k, c);
        }
        if (free_vacancy && r->loss > 0) add(list, &n, r->loss * (scan ? spread : density(s, p.x - b->x, p.y - b->y)), LOSSES, k, *a);
    }
    if (free_vacancy && r->ejection > 0) {
        if (scan) add(list, &n, r->ejection / SITE_AREA, EJECTIONS, -1, none); /* a rate per site times the sites in the field */
        else {
            Site home = nearest(s->frame, b->x, b->y);
            for (int j = -3; j <= 3; j++)
                for (int i = -3; i <= 3; i++)
                    for (int t = 0; t < 2; t++) {
                        Site c = {home.i + i, home.j + j, t, 1};
                        Point q = place(s->frame, &c);
                        double dx = q.x - b->x, dy = q.y - b->y;
                        if (dx * dx + dy * dy > NEAR * NEAR || !ejectable(s, &c)) continue;
                        if (!covered(s, q)) add(list, &n, r->ejection * density(s, dx, dy), EJECTIONS, 0, c);
                    }
        }
    }
    if (r->healing > 0)
        for (int k = 0; k < s->vacancies; k++)
            if (s->vacancy[k].there) add(list, &n, r->healing, HEALINGS, k, none);
    for (int k = 0, open = -1; k < s->clusters; k++) {
        const Cluster *c = s->cluster + k;
        if (c->radius > 0) {
            double dx = c->x - b->x, dy = c->y - b->y;
            if (!scan && dx * dx + dy * dy < c->radius * c->radius) add(list, &n, r->cleaning, CLEANINGS, k, none);
        } else if (open < 0) {
            open = k;
            add(list, &n, r->contamination, CONTAMINATIONS, k, none);
        }
    }
    return n;
}

static void happen(Sheet *s, const Beam *b, const Process *p, uint64_t key, int64_t *events)
{
    double u = unit(mix(key)), v = unit(mix(key + GOLDEN));
    switch (p->kind) {
    case INVERSIONS: s->silicon[p->index] = p->site; break;
    case LOSSES: s->silicon[p->index].there = 0; vacate(s, p->site); break;
    case CONVERSIONS: vacate(s, p->site); break;
    case EJECTIONS: {
        Site site = p->site;
        if (p->index < 0) {
            site = nearest(s->frame, b->x + b->half_x * (2 * u - 1), b->y + b->half_y * (2 * v - 1));
            if (!ejectable(s, &site) || covered(s, place(s->frame, &site))) return;
        }
        vacate(s, site);
        break;
    }
    case HEALINGS: s->vacancy[p->index].there = 0; break;
    case CLEANINGS: s->cluster[p->index].radius = 0; break;
    case CONTAMINATIONS: {
        Cluster *c = s->cluster + p->index;
        double far = 2 * s->rates->radius * sqrt(u);
        int scan = b->half_x > 0;
        c->x = b->x + (scan ? b->half_x * (2 * u - 1) : far * cos(2 * M_PI * v));
        c->y = b->y + (scan ? b->half_y * (2 * v - 1) : far * sin(2 * M_PI * v));
        c->radius = s->rates->radius;
    }
    }
    events[p->kind]++;
}

static Sheet sheet_of(int l, const double *frame, const double *rates, int gaussians, const double *mixture, int pixels, double pixel, const float *probe,
                      const int32_t *optics, int silicons, int32_t *silicon, int vacancies, int32_t *vacancy, int clusters, double *cluster)
{
    return (Sheet){(const Frame *)frame + l, (const Rates *)rates + l, mixture + (size_t)l * gaussians * 4, gaussians,
                   optics ? probe + (size_t)optics[l] * pixels * pixels : probe, pixels, pixel, silicons, vacancies, clusters,
                   (Site *)silicon + (size_t)l * silicons, (Site *)vacancy + (size_t)l * vacancies, (Cluster *)cluster + (size_t)l * clusters};
}

/* Gillespie's direct method (1977, 10.1021/j100540a008): every event changes the rates, so the clock of the next starts anew.
 * A drifting beam goes in steps of at most STEP, with the rates of the middle of each. */
void expose(int lanes, const double *frame, const double *rates, int gaussians, const double *mixture, int pixels, double pixel, const float *probe,
            const int32_t *optics, int silicons, int32_t *silicon, int vacancies, int32_t *vacancy, int clusters, double *cluster,
            const double *beam, const uint64_t *keys, int64_t *events)
{
    Process list[MOST_PROCESSES];
    for (int l = 0; l < lanes; l++) {
        Beam b = ((const Beam *)beam)[l];
        if (!(b.seconds > 0)) continue;
        Sheet s = sheet_of(l, frame, rates, gaussians, mixture, pixels, pixel, probe, optics, silicons, silicon, vacancies, vacancy, clusters, cluster);
        double steps = ceil(b.seconds * hypot(b.vx, b.vy) / STEP), each = steps > 1 ? b.seconds / steps : b.seconds, left = each;
        b.x += 0.5 * each * b.vx, b.y += 0.5 * each * b.vy;
        for (int turn = 0, step = 1; turn < MOST_EVENTS; turn++) {
            uint64_t key = mix(keys[l] + GOLDEN * (uint64_t)(turn + 1));
            int n = processes(&s, &b, list);
            double total = 0, sum = 0;
            for (int k = 0; k < n; k++) total += list[k].rate;
            if (total > 0) left += log(unit(mix(key + 1))) / total;
            if (!(total > 0) || left <= 0) {
                if (step++ >= steps) break;
                b.x += each * b.vx, b.y += each * b.vy, left = each;
                continue;
            }
            double chosen = unit(mix(key + 2)) * total;
            int k = 0;
            for (; k < n - 1; k++)
                if ((sum += list[k].rate) > chosen) break;
            happen(&s, &b, list + k, mix(key + 3), events + (size_t)l * EVENTS);
        }
    }
}

/* Rates (1/s) of the swaps of every silicon atom with its three neighbours with the beam parked at (lanes, 2). */
void inversions(int lanes, const double *frame, const double *rates, int gaussians, const double *mixture, int pixels, double pixel, const float *probe,
                const int32_t *optics, int silicons, int32_t *silicon, int vacancies, int32_t *vacancy, int clusters, double *cluster,
                const double *beam, double *out)
{
    Process list[MOST_PROCESSES];
    for (int l = 0; l < lanes; l++) {
        Sheet s = sheet_of(l, frame, rates, gaussians, mixture, pixels, pixel, probe, optics, silicons, silicon, vacancies, vacancy, clusters, cluster);
        Beam b = {.x = beam[2 * l], .y = beam[2 * l + 1]};
        int n = processes(&s, &b, list);
        for (int k = 0; k < n; k++)
            for (int m = 0; m < 3 && list[k].kind == INVERSIONS; m++) {
                Site c = neighbour(s.silicon + list[k].index, m);
                if (same(&c, &list[k].site)) out[((size_t)l * silicons + list[k].index) * 3 + m] = list[k].rate;
            }
    }
}

/* Where the silicon atoms are: places, vectors to their three sites around, folds (0: lost), whether covered, and which neighbours can swap. */
void survey(int lanes, const double *frame, int silicons, const int32_t *silicon, int vacancies, const int32_t *vacancy, int clusters, const double *cluster,
            double *position, double *around, int8_t *folds, uint8_t *hidden, uint8_t *open)
{
    for (int l = 0; l < lanes; l++) {
        Sheet s = sheet_of(l, frame, 0, 0, 0, 0, 1, 0, 0, silicons, (int32_t *)silicon, vacancies, (int32_t *)vacancy, clusters, (double *)cluster);
        for (int k = 0; k < silicons; k++) {
            size_t at = (size_t)l * silicons + k;
            const Site *a = s.silicon + k;
            int count;
            Point p = seat(&s, a, &count), home = place(s.frame, a);
            position[2 * at] = p.x, position[2 * at + 1] = p.y;
            folds[at] = a->there ? (int8_t)count : 0, hidden[at] = (uint8_t)covered(&s, p);
            for (int m = 0; m < 3; m++) {
                Site c = neighbour(a, m);
                Point q = place(s.frame, &c);
                around[6 * at + 2 * m] = q.x - home.x, around[6 * at + 2 * m + 1] = q.y - home.y;
                open[3 * at + m] = a->there && count == 3 && !hidden[at] && !listed(s.silicon, silicons, &c) && !covered(&s, q);
            }
        }
    }
}

/* Silicon on random sites within ``spread`` of (0, 0), ``apart`` from one another. Returns how many lanes had no room. */
int populate(int lanes, const double *frame, const uint64_t *keys, double spread, double apart, int silicons, int32_t *silicon)
{
    int crowded = 0;
    for (int l = 0; l < lanes; l++) {
        Site *list = (Site *)silicon + (size_t)l * silicons;
        const Frame *f = (const Frame *)frame + l;
        memset(list, 0, sizeof(Site) * silicons);
        uint64_t key = keys[l];
        for (int k = 0, turn = 0; k < silicons; turn++) {
            uint64_t draw = key + GOLDEN * (uint64_t)(2 * turn + 1);
            double far = spread * sqrt(unit(mix(draw))), angle = 2 * M_PI * unit(mix(draw + GOLDEN));
            Site a = nearest(f, far * cos(angle), far * sin(angle));
            Point p = place(f, &a);
            int taken = 0;
            for (int other = 0; other < k; other++) {
                Point q = place(f, list + other);
                taken |= (p.x - q.x) * (p.x - q.x) + (p.y - q.y) * (p.y - q.y) < apart * apart;
            }
            if (!taken) list[k++] = a;
            else if (turn > 1000) {
                crowded++;
                break;
            }
        }
    }
    return crowded;
}

/* Vacancies at the start: beside the first silicon atoms (``beside`` lanes x silicons) and ``more`` within ``spread`` of (0, 0). */
void perforate(int lanes, const double *frame, const uint64_t *keys, double spread, int more, const uint8_t *beside, int silicons, const int32_t *silicon,
               int vacancies, int32_t *vacancy)
{
    for (int l = 0; l < lanes; l++) {
        const Site *list = (const Site *)silicon + (size_t)l * silicons;
        Sheet s = {.vacancies = vacancies, .vacancy = (Site *)vacancy + (size_t)l * vacancies};
        memset(s.vacancy, 0, sizeof(Site) * vacancies);
        uint64_t key = keys[l];
        for (int k = 0; k < silicons; k++) {
            Site n = neighbour(list + k, (int)(3 * unit(mix(key + GOLDEN * (uint64_t)(k + 1)))));
            if (beside[(size_t)l * silicons + k] && !listed(list, silicons, &n) && !listed(s.vacancy, vacancies, &n)) vacate(&s, n);
        }
        for (int k = 0; k < more; k++) {
            uint64_t draw = key + GOLDEN * (uint64_t)(2 * k + 101);
            double far = spread * sqrt(unit(mix(draw))), angle = 2 * M_PI * unit(mix(draw + GOLDEN));
            Site n = nearest((const Frame *)frame + l, far * cos(angle), far * sin(angle));
            if (!listed(list, silicons, &n) && !listed(s.vacancy, vacancies, &n)) vacate(&s, n);
        }
    }
}

/* Sites within a square around a place that are not silicon or vacant: (count of them, up to most) x, y; returns the count. */
int carbon(const double *frame, double x, double y, double half_x, double half_y, int silicons, const int32_t *silicon, int vacancies,
           const int32_t *vacancy, int most, double *out)
{
    const Frame *f = (const Frame *)frame;
    Site home = nearest(f, x, y);
    int reach = (int)(1.5 * (half_x + half_y) / LATTICE) + 2, n = 0;
    for (int j = -reach; j <= reach; j++)
        for (int i = -reach; i <= reach; i++)
            for (int t = 0; t < 2; t++) {
                Site c = {home.i + i, home.j + j, t, 1};
                Point q = place(f, &c);
                if (fabs(q.x - x) > half_x || fabs(q.y - y) > half_y || n == most) continue;
                if (listed((const Site *)silicon, silicons, &c) || listed((const Site *)vacancy, vacancies, &c)) continue;
                out[2 * n] = q.x, out[2 * n + 1] = q.y, n++;
            }
    return n;
}
