// Attention of rows over the slots of their caches that they see. Knows no layer but the index of its keys and values.
//
// Every score, weight and sum is one chain over the slots in order, and what a row does not see adds an exact 0, so a row's
// result does not depend on the rows that are done together with it.
#include "network.h"

// Scores of LANES neighbouring keys for n queries, which lie side by side: [head_dim][ROWS].
INLINE void score_panel(int n, const float *q, const float *k, int64_t K, float *to, int64_t stride) {
    vf acc[ROWS] = {};
    for (int64_t i = 0; i < K; i++)
        for (int r = 0; r < n; r++) acc[r] = fused(all(q[i * ROWS + r]), load(k + i * LANES), acc[r]);
    for (int r = 0; r < n; r++) store(to + r * stride, acc[r]);
}

#define MIX 4  // vectors of a value summed at a time
INLINE void mix_values(int n, int vectors, const float *p, int64_t stride, const Cache *c, const float *v, int64_t K,
                       Range first, Range second, float *to[ROWS]) {
    vf acc[ROWS][MIX] = {};
    for (int part = 0; part < 2; part++)
        for (int64_t at = part ? second.from : first.from; at < (part ? second.to : first.to); at += LANES) {
            const float *value = v + slot_of(c, at) * K;
            for (int64_t slot = at; slot < at + LANES; slot++, value += K)
                for (int r = 0; r < n; r++)
                    for (int x = 0; x < vectors; x++)
                        acc[r][x] = fused(all(p[r * stride + slot]), load(value + x * LANES), acc[r][x]);
        }
    for (int r = 0; r < n; r++)
        for (int x = 0; x < vectors; x++) store(to[r] + x * LANES, acc[r][x]);
}

// Softmax over the slots a row sees; the others become 0 exactly, so that rows done together do not disturb each other.
static void soften(float *p, int64_t limit, int64_t start, int64_t stop, Range first, Range second) {
    vi lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    vf most = all(-1e30f), sum = {};
    for (int pass = 0; pass < 2; pass++) {
        float top = pass ? highest(most) : 0;
        for (int part = 0; part < 2; part++)
            for (int64_t at = part ? second.from : first.from; at < (part ? second.to : first.to); at += LANES) {
                vi slot = lane + (int32_t)at;
                vi seen = (slot < (int32_t)limit) | ((slot >= (int32_t)start) & (slot < (int32_t)stop));
                vf x = choose(seen, load(p + at), all(-1e30f));
                if (!pass) most = choose(x > most, x, most);
                else {
                    x = exponential(x - top);
                    sum += x;
                    store(p + at, x);
                }
            }
    }
    float inverse = 1 / total(sum);
    for (int part = 0; part < 2; part++)
        for (int64_t at = part ? second.from : first.from; at < (part ? second.to : first.to); at += LANES)
            store(p + at, load(p + at) * inverse);
}

static int64_t up(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

// Query heads that share a key head, of rows [row, row + count), which share a cache: at most ROWS queries.
static void attend(const Network *net, const Rows *rows, const Scratch *s, int64_t layer, int64_t g, int64_t row,
                   int count, float *p) {
    int64_t K = net->head_dim, H = net->n_heads, G = net->n_kv_heads, group = H / G, stride = s->slots;
    const Cache *c = rows->caches + rows->cache[row];
    const float *keys = c->k + (layer * G + g) * c->slots * K, *values = c->v + (layer * G + g) * c->slots * K;
    float q[K * ROWS], *to[ROWS];
    Range first = {0, 0}, second = {INT64_MAX, 0};
    for (int i = 0; i < count; i++) {
        int64_t r = row + i, limit = up(rows->limit[r]);
        if (limit > first.to) first.to = limit;
        if (rows->stop[r] > rows->start[r]) {
            if (rows->start[r] / LANES * LANES < second.from) second.from = rows->start[r] / LANES * LANES;
            if (up(rows->stop[r]) > second.to) second.to = up(rows->stop[r]);
        }
    }
    if (second.from < first.to) second.from = first.to;
    if (second.to < second.from) second.to = second.from;
    for (int64_t head = 0; head < group; head += ROWS / count) {
        int heads = group - head < ROWS / count ? (int)(group - head) : ROWS / count, n = count * heads;
        for (int i = 0; i < n; i++) {
            int64_t r = row + i % count, h = g * group + head + i / count;
            const float *query = s->qkv + r * (H + 2 * G) * K + h * K;
            for (int64_t x = 0; x < K; x++) q[x * ROWS + i] = query[x];
            to[i] = s->mixed + r * H * K + h * K;
        }
        for (int part = 0; part < 2; part++)
            for (int64_t at = part ? second.from : first.from; at < (part ? second.to : first.to); at += LANES) {
                const float *panel = keys + slot_of(c, at) * K;
                switch (n) {
                case 1: score_panel(1, q, panel, K, p + at, stride); break;
                case 2: score_panel(2, q, panel, K, p + at, stride); break;
                case 4: score_panel(4, q, panel, K, p + at, stride); break;
                case 8: score_panel(8, q, panel, K, p + at, stride); break;
                default: for (int i = 0; i < n; i++) score_panel(1, q + i, panel, K, p + i * stride + at, 0);
                }
            }
        for (int i = 0; i < n; i++) {
            int64_t r = row + i % count;
            soften(p + i * stride, rows->limit[r], rows->start[r], rows->stop[r], first, second);
        }
        int vectors = K % (MIX * LANES) ? 1 : MIX;
        for (int64_t column = 0; column < K; column += vectors * LANES, values += vectors * LANES) {
            for (int i = 0, step; i < n; i += step) {
                step = n - i >= 4 ? 4 : 1;
                const float *weights = p + i * stride;
                float **out = to + i;
                if (step == 4 && vectors == MIX) mix_values(4, MIX, weights, stride, c, values, K, first, second, out);
                else if (step == 4) mix_values(4, 1, weights, stride, c, values, K, first, second, out);
                else if (vectors == MIX) mix_values(1, MIX, weights, stride, c, values, K, first, second, out);
                else mix_values(1, 1, weights, stride, c, values, K, first, second, out);
            }
            for (int i = 0; i < n; i++) to[i] += vectors * LANES;
        }
        values -= K;
    }
}

// Blocks of rows of one cache whose queries fill a tile; every thread takes its turns.
static void attend_all(const Network *net, const Rows *rows, const Scratch *s, int64_t layer, int id, int threads) {
    int64_t group = net->n_heads / net->n_kv_heads, turn = 0;
    int most = group >= ROWS ? 1 : (int)(ROWS / group);
    for (int64_t row = 0, count; row < rows->n; row += count) {
        for (count = 1; count < most && row + count < rows->n; count++)
            if (rows->cache[row + count] != rows->cache[row] || rows->start[row + count] != rows->start[row]) break;
        for (int64_t g = 0; g < net->n_kv_heads; g++, turn++)
            if (turn % threads == id)
                attend(net, rows, s, layer, g, row, (int)count, s->scores + (int64_t)id * ROWS * s->slots);
    }
}
