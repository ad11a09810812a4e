// One forward of the decoder-only transformer of models/transformer.py on a CPU, all threads in one parallel region.
#include "attention.h"

static void put_rows(const Rows *rows, const Scratch *s, const Products *own, const Products *draft, const float *from,
                     int64_t n, int64_t k_own, int64_t k_draft, Range range) {
    for (int64_t row = range.from; row < range.to; row++)
        if (row < rows->n_own) put(own->out.kind, s->own, row, from + row * n, n, k_own);
        else put(draft->out.kind, s->draft, row, from + row * n, n, k_draft);
}

static void norm_rows(const Network *net, const Rows *rows, Scratch *s, const Layer *layer, const float *weight,
                      int64_t k_own, int64_t k_draft, Range range) {
    float normed[net->width];
    for (int64_t row = range.from; row < range.to; row++) {
        normalise(normed, s->x + row * net->width, weight, net->width, net->eps);
        if (row < rows->n_own) put(layer->own.qkv.kind, s->own, row, normed, net->width, k_own);
        else put(layer->draft.qkv.kind, s->draft, row, normed, net->width, k_draft);
    }
}

enum { STORE, ADD, SWIGLU };

static void finish(int then, float *to, int64_t n, int64_t panel, float part[PANEL]) {
    int64_t from = panel * PANEL, count = n - from < PANEL ? n - from : PANEL;
    if (then == STORE)
        memcpy(to + from, part, count * sizeof(float));
    else if (then == ADD)
        for (int64_t c = 0; c < count; c++) to[from + c] += part[c];
    else {  // half a panel of gates, half of ups
        int64_t half = panel * (PANEL / 2), last = n / 2 - half < PANEL / 2 ? n / 2 - half : PANEL / 2;
        float out[PANEL / 2];
        for (int v = 0; v < PANEL / 2; v += LANES) {
            vf gate = load(part + v), up = load(part + PANEL / 2 + v);
            vf turned = choose(gate < all(-87.0f), all(87.0f), -gate);
            store(out + v, gate / (1.0f + exponential(turned)) * up);
        }
        memcpy(to + half, out, last * sizeof(float));
    }
}

static void multiply(const Matrix *m, Operand x, int64_t from, int64_t to, int then, float *y, int64_t n, Range panels) {
    int64_t stride = then == SWIGLU ? n / 2 : n;
    float part[ROWS][PANEL];
    for (int64_t panel = panels.from; panel < panels.to; panel++)
        for (int64_t row = from; row < to; row += ROWS) {
            int rows = to - row < ROWS ? (int)(to - row) : ROWS;
            product(rows, m, x, row, panel, part);
            for (int r = 0; r < rows; r++) finish(then, y + (row + r) * stride, n, panel, part[r]);
        }
}

#define BOTH(which, then, y, columns)                                                                                 \
    multiply(&layer->own.which, s->own, 0, rows->n_own, then, y, columns, panels(columns, id, threads));               \
    multiply(&layer->draft.which, s->draft, rows->n_own, rows->n, then, y, columns, panels(columns, id, threads))

static void turn(float *x, const float *cos, const float *sin, int64_t n, float scale) {
    for (int64_t i = 0; i < n / 2; i++) {
        float a = x[i], b = x[i + n / 2];
        x[i] = (a * cos[i] - b * sin[i]) * scale;
        x[i + n / 2] = (b * cos[i] + a * sin[i]) * scale;
    }
}

// Norms and rotary positions on a row's queries and keys; keys and values go to their slot of the cache.
static void place(const Network *net, const Rows *rows, const Scratch *s, int64_t layer, int64_t row) {
    const Layer *l = net->layers + layer;
    int64_t K = net->head_dim, H = net->n_heads, G = net->n_kv_heads, position = rows->position[row];
    float *qkv = s->qkv + row * (H + 2 * G) * K;
    if (l->qkv_bias)
        for (int64_t i = 0; i < (H + 2 * G) * K; i++) qkv[i] += l->qkv_bias[i];
    for (int64_t head = 0; head < H + G; head++) {
        const float *weight = head < H ? l->q_norm : l->k_norm;
        if (weight) normalise(qkv + head * K, qkv + head * K, weight, K, net->eps);
        float scale = head < H ? net->query_scale[position] : 1;
        turn(qkv + head * K, net->cos + position * K / 2, net->sin + position * K / 2, K, scale);
    }
    const Cache *c = rows->caches + rows->cache[row];
    int64_t slot = slot_of(c, rows->slot[row]);
    for (int64_t g = 0; g < G; g++) {
        int64_t base = (layer * G + g) * c->slots * K;
        float *k = c->k + base + slot / LANES * LANES * K + slot % LANES;
        for (int64_t i = 0; i < K; i++) k[i * LANES] = qkv[(H + g) * K + i];
        memcpy(c->v + base + slot * K, qkv + (H + G + g) * K, K * sizeof(float));
    }
}

static void run_layer(const Network *net, const Rows *rows, Scratch *s, int64_t index, int id, int threads) {
    const Layer *layer = net->layers + index;
    int64_t heads = net->n_heads * net->head_dim, all_heads = (net->n_heads + 2 * net->n_kv_heads) * net->head_dim;
    Range mine = share(rows->n, id, threads);
    norm_rows(net, rows, s, layer, layer->input_norm, layer->own.qkv.k, layer->draft.qkv.k, mine);
    barrier(threads);
    BOTH(qkv, STORE, s->qkv, all_heads);
    barrier(threads);
    for (int64_t row = mine.from; row < mine.to; row++) place(net, rows, s, index, row);
    barrier(threads);
    attend_all(net, rows, s, index, id, threads);
    barrier(threads);
    put_rows(rows, s, &layer->own, &layer->draft, s->mixed, heads, layer->own.out.k, layer->draft.out.k, mine);
    barrier(threads);
    BOTH(out, ADD, s->x, net->width);
    barrier(threads);
    norm_rows(net, rows, s, layer, layer->post_norm, layer->own.gate_up.k, layer->draft.gate_up.k, mine);
    barrier(threads);
    BOTH(gate_up, SWIGLU, s->act, 2 * net->inner);
    barrier(threads);
    put_rows(rows, s, &layer->own, &layer->draft, s->act, net->inner, layer->own.down.k, layer->draft.down.k, mine);
    barrier(threads);
    BOTH(down, ADD, s->x, net->width);
    barrier(threads);
}

typedef struct { const Network *net; const Rows *rows; Scratch *scratch; float *hidden; } Forward;

static void run_forward(int id, int of, void *with) {
    const Forward *f = with;
    const Network *net = f->net;
    Range mine = share(f->rows->n, id, of);
    for (int64_t row = mine.from; row < mine.to; row++)
        memcpy(f->scratch->x + row * net->width, net->embedding + f->rows->token[row] * net->width,
               net->width * sizeof(float));
    for (int64_t i = 0; i < net->n_layers; i++) run_layer(net, f->rows, f->scratch, i, id, of);
    for (int64_t row = mine.from; row < mine.to; row++)
        normalise(f->hidden + row * net->width, f->scratch->x + row * net->width, net->norm, net->width, net->eps);
    barrier(of);
}

// The first row that points outside the vocabulary, the positions, its cache or the scores; -1 if there is none.
static int64_t stray(const Network *net, const Rows *rows, int64_t slots) {
    for (int64_t r = 0; r < rows->n; r++) {
        int64_t capacity = rows->caches[rows->cache[r]].capacity, end = capacity < slots ? capacity : slots;
        if (rows->token[r] < 0 || rows->token[r] >= net->vocab || rows->position[r] < 0 ||
            rows->position[r] >= net->positions || rows->slot[r] < 0 || rows->slot[r] >= end || rows->limit[r] < 0 ||
            rows->limit[r] > end || rows->start[r] < 0 || rows->stop[r] > end)
            return r;
    }
    return -1;
}

// Rows in, normed hidden rows out [rows][width]. Returns the first row that is not in order, before anything is done, or -1.
int64_t forward(const Network *net, const Rows *rows, Scratch *scratch, float *hidden, int threads) {
    Forward f = {net, rows, scratch, hidden};
    int64_t wrong = stray(net, rows, scratch->slots);
    if (wrong < 0) together(threads, run_forward, &f);
    return wrong;
}

typedef struct { const Matrix *matrix; Operand x; const float *hidden; int64_t n, k, vocab; float *out; } Head;

static void run_head(int id, int of, void *with) {
    const Head *h = with;
    Range mine = share(h->n, id, of);
    for (int64_t row = mine.from; row < mine.to; row++)
        put(h->matrix->kind, h->x, row, h->hidden + row * h->k, h->k, h->matrix->k);
    barrier(of);
    multiply(h->matrix, h->x, 0, h->n, STORE, h->out, h->vocab, panels(h->vocab, id, of));
    barrier(of);
}

// Hidden rows [n][k] times the head, float or bfloat16 -> logits [n][vocab]. `x` is scratch of n * k floats.
void logits(const Matrix *head, void *x, const float *hidden, int64_t n, int64_t k, int64_t vocab, float *out, int threads) {
    Head h = {head, {x, 0}, hidden, n, k, vocab, out};
    together(threads, run_head, &h);
}

static float largest(const float *x, int64_t n) {
    vf most = all(-INFINITY);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) most = choose(load(x + i) > most, load(x + i), most);
    float top = highest(most);
    for (; i < n; i++) top = x[i] > top ? x[i] : top;
    return top;
}

#define BLOCK 256
static int has(const float *x, float value) {
    int found = 0;
    for (int i = 0; i < BLOCK; i++) found |= x[i] == value;
    return found;
}

// The best token that is not `banned`, the first of equals, and its probability, the banned one's share included.
static void choose_best(const float *x, int64_t vocab, int64_t banned, int64_t *token, double *probability) {
    int64_t cut = banned < 0 ? vocab : banned, i = 0;
    float value = largest(x, cut), top = value;
    if (cut < vocab) {
        value = fmaxf(value, largest(x + cut + 1, vocab - cut - 1));
        top = fmaxf(value, x[cut]);
    }
    while (i + BLOCK <= vocab && !has(x + i, value)) i += BLOCK;
    while (i < vocab && (x[i] != value || i == banned)) i++;
    int64_t best = i < vocab ? i : banned == 0;  // numbers that are none have no best
    vf part = {};
    double sum = 0;
    for (i = 0; i + LANES <= vocab; i += LANES) part += exponential(load(x + i) - top);
    for (; i < vocab; i++) sum += expf(x[i] - top);
    *token = best;
    *probability = exp((double)x[best] - top) / (sum + total(part));
}

typedef struct { const float *scores; int64_t n, vocab, banned, *token; double *probability; } Greedy;

static void run_greedy(int id, int of, void *with) {
    const Greedy *g = with;
    Range mine = share(g->n, id, of);
    for (int64_t row = mine.from; row < mine.to; row++)
        choose_best(g->scores + row * g->vocab, g->vocab, g->banned, g->token + row, g->probability + row);
    barrier(of);
}

// Greedy choices of logits [n][vocab]; `banned` is -1 for nobody.
void greedy(const float *scores, int64_t n, int64_t vocab, int64_t banned, int64_t *token, double *probability, int threads) {
    Greedy g = {scores, n, vocab, banned, token, probability};
    together(n > 1 ? threads : 1, run_greedy, &g);
}

int supports(int64_t kind) {
    if (kind == F32) return 1;
#ifdef __AVX512BF16__
    if (kind == BF16) return 1;
#endif
#ifdef __AVX512VNNI__
    if (kind == INT8) return 1;
#endif
    return 0;
}

int lanes(void) { return LANES; }
