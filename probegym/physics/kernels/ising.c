/* Ising lattices on a torus: checkerboard updates, eight sites at a time, and exchanges of neighbours. See physics/ising.py.

   Every lane has its own generators: eight xoshiro128++ side by side (Blackman & Vigna 2021, 10.1145/3460772), seeded from the
   lane's key by SplitMix64. A probability is a threshold for 32 random bits, so it is exact to 2^-32. */
#include "random.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH 8  /* sites of one colour that are updated together */
#define EDGE 8   /* bytes before and behind a row of one colour, for its periodic images */

typedef int32_t vi __attribute__((vector_size(32)));
typedef uint32_t vu __attribute__((vector_size(32)));
typedef uint8_t v8 __attribute__((vector_size(8)));

typedef struct { vu a, b, c, d; } streams;

static inline vu turned(vu x, int k) { return (x << k) | (x >> (32 - k)); }

static inline vu next(streams *s)
{
    vu out = turned(s->a + s->d, 7) + s->a, t = s->b << 9;
    s->c ^= s->a;
    s->d ^= s->b;
    s->b ^= s->c;
    s->a ^= s->d;
    s->c ^= t;
    s->d = turned(s->d, 11);
    return out;
}

static streams seeded(uint64_t key)
{
    uint32_t words[4 * WIDTH];
    for (int i = 0; i < 2 * WIDTH; i++) {
        uint64_t bits = mix(key + GOLDEN * (uint64_t)(i + 1));
        memcpy(words + 2 * i, &bits, 8);
    }
    streams s;
    memcpy(&s, words, sizeof s);
    return s;
}

/* Sites of one colour of a row; thresholds[spin][up neighbours] decides whether the new spin is up. */
static inline void row_of_colour(uint8_t *own, const uint8_t *above, const uint8_t *below, const uint8_t *left, const uint8_t *right, int half, vi down,
                                 vi up, streams *s)
{
    for (int j = 0; j < half; j += WIDTH) {
        uint64_t a, b, c, d;
        memcpy(&a, above + j, 8);
        memcpy(&b, below + j, 8);
        memcpy(&c, left + j, 8);
        memcpy(&d, right + j, 8);
        a += b + c + d; /* eight counts of 0 to 4, no carry between bytes */
        v8 count, spin;
        memcpy(&count, &a, 8);
        memcpy(&spin, own + j, 8);
        vi n = __builtin_convertvector(count, vi), was = -__builtin_convertvector(spin, vi);
        vi limit = (__builtin_shuffle(up, n) & was) | (__builtin_shuffle(down, n) & ~was);
        vi fresh = ((vi)next(s) < limit) & 1;
        v8 out = __builtin_convertvector(fresh, v8);
        memcpy(own + j, &out, 8);
    }
}

/* Checkerboard sweeps. spins: (lanes, rows, columns) +-1, both even. thresholds: (lanes, rows, 2, 8), signed, by spin before and
   number of neighbours that are up. Returns 1 without memory. */
int checkerboard(int lanes, int rows, int columns, int8_t *spins, const int32_t *thresholds, const int64_t *sweeps, const uint64_t *keys)
{
    int half = columns / 2, wide = EDGE + (half + WIDTH - 1) / WIDTH * WIDTH + EDGE;
    uint8_t *board = malloc((size_t)2 * rows * wide);
    if (!board) return 1;
    for (int l = 0; l < lanes; l++) {
        int8_t *lattice = spins + (int64_t)l * rows * columns;
        const int32_t *limits = thresholds + (int64_t)l * rows * 16;
        streams s = seeded(keys[l]);
        memset(board, 0, (size_t)2 * rows * wide);
        for (int r = 0; r < rows; r++)
            for (int k = 0; k < columns; k++) board[((r + k) % 2 * rows + r) * wide + EDGE + k / 2] = lattice[r * columns + k] > 0;
        for (int colour = 0; colour < 2; colour++)
            for (int r = 0; r < rows; r++) {
                uint8_t *row = board + (colour * rows + r) * wide + EDGE;
                row[-1] = row[half - 1];
                row[half] = row[0];
            }
        for (int64_t sweep = 0; sweep < sweeps[l]; sweep++)
            for (int colour = 0; colour < 2; colour++)
                for (int r = 0; r < rows; r++) {
                    uint8_t *other = board + (1 - colour) * rows * wide + EDGE, *own = board + (colour * rows + r) * wide + EDGE;
                    int shift = (r + colour) % 2; /* of the colour's first site in this row */
                    uint8_t *beside = other + r * wide;
                    vi down, up;
                    memcpy(&down, limits + 16 * r, sizeof down);
                    memcpy(&up, limits + 16 * r + 8, sizeof up);
                    row_of_colour(own, other + (r + rows - 1) % rows * wide, other + (r + 1) % rows * wide, beside + shift - 1, beside + shift, half, down, up, &s);
                    own[-1] = own[half - 1];
                    own[half] = own[0];
                }
        for (int r = 0; r < rows; r++)
            for (int k = 0; k < columns; k++) lattice[r * columns + k] = 2 * board[((r + k) % 2 * rows + r) * wide + EDGE + k / 2] - 1;
    }
    free(board);
    return 0;
}

/* The same with diagonal neighbours, four sublattices in turn. thresholds: (lanes, rows, 2, 5, 5) by spin, neighbours and diagonal ones up. */
void four_sublattices(int lanes, int rows, int columns, int8_t *spins, const int32_t *thresholds, const int64_t *sweeps, const uint64_t *keys)
{
    for (int l = 0; l < lanes; l++) {
        int8_t *lattice = spins + (int64_t)l * rows * columns;
        const int32_t *limits = thresholds + (int64_t)l * rows * 50;
        uint64_t count = 0;
        for (int64_t sweep = 0; sweep < sweeps[l]; sweep++)
            for (int part = 0; part < 4; part++)
                for (int r = part / 2; r < rows; r += 2) {
                    int8_t *own = lattice + r * columns, *above = lattice + (r + rows - 1) % rows * columns, *below = lattice + (r + 1) % rows * columns;
                    for (int k = part % 2; k < columns; k += 2) {
                        int left = k ? k - 1 : columns - 1, right = k + 1 < columns ? k + 1 : 0;
                        int near = (own[left] + own[right] + above[k] + below[k] + 4) / 2;
                        int diagonal = (above[left] + above[right] + below[left] + below[right] + 4) / 2;
                        int32_t bits = (int32_t)(mix(keys[l] + GOLDEN * ++count) >> 32);
                        own[k] = bits < limits[50 * r + 25 * (own[k] > 0) + 5 * near + diagonal] ? 1 : -1;
                    }
                }
    }
}

/* Kawasaki's exchange of neighbours: rows x columns attempts a sweep, accepted with min(1, exp(-dE / kT)).
   coupling, diagonal: (lanes,) over kT; field: (lanes, rows) over kT. */
void exchanges(int lanes, int rows, int columns, int8_t *spins, const double *coupling, const double *diagonal, const double *field, const int64_t *sweeps,
               const uint64_t *keys)
{
    int64_t sites = (int64_t)rows * columns;
    for (int l = 0; l < lanes; l++) {
        int8_t *s = spins + l * sites;
        const double *h = field + (int64_t)l * rows;
        for (int64_t n = 0; n < sweeps[l] * sites; n++) {
            uint64_t bits = mix(keys[l] + GOLDEN * (uint64_t)(n + 1));
            int64_t pair = (int64_t)((bits >> 32) * (uint64_t)(2 * sites) >> 32); /* a site, and the one to its right or below it */
            int r = (int)(pair / 2 / columns), k = (int)(pair / 2 % columns);
            int r2 = pair % 2 ? (r + 1) % rows : r, k2 = pair % 2 ? k : (k + 1) % columns;
            int8_t *i = s + r * columns + k, *j = s + r2 * columns + k2;
            if (*i == *j) continue;
            int sum[2], across[2], at[2][2] = {{r, k}, {r2, k2}};
            for (int e = 0; e < 2; e++) {
                int8_t *own = s + at[e][0] * columns, *above = s + (at[e][0] + rows - 1) % rows * columns, *below = s + (at[e][0] + 1) % rows * columns;
                int here = at[e][1], left = (here + columns - 1) % columns, right = (here + 1) % columns;
                sum[e] = own[left] + own[right] + above[here] + below[here] - (e ? *i : *j);
                across[e] = above[left] + above[right] + below[left] + below[right];
            }
            double cost = 2 * *i * (coupling[l] * (sum[0] - sum[1]) + diagonal[l] * (across[0] - across[1]) + h[r] - h[r2]);
            if (cost <= 0 || (uint32_t)bits * 0x1.0p-32 < exp(-cost)) {
                int8_t was = *i;
                *i = *j;
                *j = was;
            }
        }
    }
}
