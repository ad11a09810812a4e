// What a forward is given: weights, rows, caches, scratch; field for field what structs.py says.
//
// Who sees whom comes in as integers per row (spans.Layout): cache slots [0, limit) and [start, stop). The cache keeps keys
// in panels of LANES slots, [slots / LANES][head_dim][LANES], and values slot by slot, [slots][head_dim].
#include "products.h"
#include "threads.h"

typedef struct {
    Matrix qkv, out, gate_up, down;
} Products;

typedef struct {
    Products own, draft;  // `draft` serves the rows that cannot change an answer; own again where there is nothing cheaper
    const float *input_norm, *post_norm, *qkv_bias, *q_norm, *k_norm;  // the last three may be null
} Layer;

typedef struct {
    int64_t n_layers, width, inner, n_heads, n_kv_heads, head_dim, vocab;  // width, inner, head_dim: multiples of 16
    float eps;
    const Layer *layers;
    const float *embedding, *norm;  // embedding rows as floats
    const float *cos, *sin, *query_scale;  // [positions][head_dim / 2] twice, [positions]
    int64_t positions;
} Network;

typedef struct {
    float *k, *v;          // of a pool: [layers][kv heads][slots][head_dim], keys in panels
    int64_t slots;         // of the pool, a multiple of 16
    int64_t capacity;      // positions of the text there is room for
    const int64_t *pages;  // the slot at which each page begins; none: position and slot are the same
    int64_t page;          // positions of a page, a multiple of 16
} Cache;

INLINE int64_t slot_of(const Cache *c, int64_t position) {
    return c->pages ? c->pages[position / c->page] + position % c->page : position;
}

typedef struct {
    int64_t n, n_own;  // rows, and how many of them (the first) are no drafts
    const int64_t *token, *position, *cache, *slot, *limit, *start, *stop;
    const Cache *caches;
} Rows;

typedef struct {  // scratch of one forward
    float *x, *qkv, *mixed, *act, *scores;
    Operand own, draft;
    int64_t slots;  // width of a row of scores
} Scratch;

typedef struct { int64_t from, to; } Range;

static Range share(int64_t n, int id, int of) { return (Range){n * id / of, n * (id + 1) / of}; }

static Range panels(int64_t n, int id, int of) { return share((n + PANEL - 1) / PANEL, id, of); }

static void normalise(float *to, const float *x, const float *weight, int64_t n, float eps) {
    vf sum = {};
    for (int64_t i = 0; i < n; i += LANES) sum = fused(load(x + i), load(x + i), sum);
    float inverse = 1 / sqrtf(total(sum) / n + eps);
    for (int64_t i = 0; i < n; i += LANES) store(to + i, load(x + i) * inverse * load(weight + i));
}
