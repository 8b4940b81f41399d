#include "peer_table.h"

#include <math.h>
#include <string.h>

#if ROADSENSE_NUM_EGO != 4 || ROADSENSE_NUM_PEER != 8
#error "the model reads another observation than the one written here"
#endif

#define EARTH_M 6371008.8
#define RAD_PER_DEG 0.017453292519943295
#define MOST_IN_A_STEP 15

static const float ego_scales[] = ROADSENSE_EGO_SCALES;
static const float ego_lows[] = ROADSENSE_EGO_LOWS;
static const float ego_highs[] = ROADSENSE_EGO_HIGHS;
static const float peer_scales[] = ROADSENSE_PEER_SCALES;
static const float peer_lows[] = ROADSENSE_PEER_LOWS;
static const float peer_highs[] = ROADSENSE_PEER_HIGHS;

static float clipped(float value, float low, float high)
{
    return value < low ? low : value > high ? high : value;
}

/* By clocks that wrap: a difference of less than half their range is one into the future. */
static int is_newer(uint32_t one_ms, uint32_t other_ms)
{
    uint32_t ahead = one_ms - other_ms;
    return ahead != 0 && ahead < UINT32_C(0x80000000);
}

void peer_table_begin(struct peer_table *table, const char *own_id)
{
    memset(table, 0, sizeof *table);
    for (int i = 0; i < MESSAGE_ID_BYTES && own_id[i] != 0; i++)
        table->own_id[i] = own_id[i];
}

/* The peer's own place; of a new peer a free one, or that of the peer that has been silent longest, if it is stale. */
static struct peer *place_of(struct peer_table *table, const char *id, int64_t now_us)
{
    struct peer *oldest = NULL;
    for (int p = 0; p < PEER_CAPACITY; p++) {
        struct peer *peer = &table->peers[p];
        if (peer->is_known && memcmp(peer->id, id, MESSAGE_ID_BYTES) == 0) {
            if (now_us - peer->heard_us <= PEER_RESTART_US)
                return peer;
            oldest = peer;
            break;
        }
        if (!peer->is_known) {
            if (oldest == NULL || oldest->is_known)
                oldest = peer;
        } else if (now_us - peer->heard_us > PEER_STALE_US
                   && (oldest == NULL || (oldest->is_known && peer->heard_us < oldest->heard_us))) {
            oldest = peer;
        }
    }
    if (oldest != NULL) {
        memset(oldest, 0, sizeof *oldest);
        memcpy(oldest->id, id, MESSAGE_ID_BYTES);
    }
    return oldest;
}

static int is_remembered(const struct peer *peer, uint32_t timestamp_ms)
{
    for (int i = 0; i < peer->remembered; i++)
        if (peer->remembered_ms[i] == timestamp_ms)
            return 1;
    return 0;
}

enum peer_result peer_table_take(struct peer_table *table, const struct message *message, int64_t arrived_us)
{
    if (memcmp(message->id, table->own_id, MESSAGE_ID_BYTES) == 0)
        return PEER_OWN;
    struct peer *peer = place_of(table, message->id, arrived_us);
    if (peer == NULL) {
        table->crowded++;
        return PEER_CROWDED;
    }
    uint32_t stamp = message->timestamp_ms;
    int newest = !peer->is_known || is_newer(stamp, peer->newest_ms);
    if (is_remembered(peer, stamp))
        return PEER_COPY;
    if (!newest && peer->newest_ms - stamp > PEER_MEMORY_MS)
        return PEER_TOO_OLD;
    peer->is_known = 1;
    peer->heard_us = arrived_us;
    peer->remembered_ms[peer->next] = stamp;
    peer->next = (peer->next + 1) % PEER_REMEMBERED;
    if (peer->remembered < PEER_REMEMBERED)
        peer->remembered++;
    if (peer->heard_now < MOST_IN_A_STEP)
        peer->heard_now++;
    if (newest)
        peer->newest_ms = stamp;
    else if (peer->count == 0)
        return PEER_TAKEN; /* heard, but its successor has gone stale already */
    int place = 0;
    while (place < peer->count && is_newer(peer->messages[place].timestamp_ms, stamp))
        place++;
    if (place == ROADSENSE_MESSAGES_PER_PEER)
        return PEER_TAKEN;
    if (peer->count < ROADSENSE_MESSAGES_PER_PEER)
        peer->count++;
    for (int entry = peer->count - 1; entry > place; entry--) {
        peer->messages[entry] = peer->messages[entry - 1];
        peer->arrived_us[entry] = peer->arrived_us[entry - 1];
    }
    peer->messages[place] = *message;
    peer->arrived_us[place] = arrived_us;
    return PEER_TAKEN;
}

static void write_row(const struct own_state *own, const struct message *told, float age_s, float *row)
{
    float own_rad = own->heading_deg * (float)RAD_PER_DEG, told_rad = told->heading_deg * (float)RAD_PER_DEG;
    float along_east = sinf(own_rad), along_north = cosf(own_rad);
    float turned = own_rad - told_rad; /* counter-clockwise, as the observation counts */
    double east_deg = (double)told->longitude_deg - own->longitude_deg;
    if (east_deg > 180.0)
        east_deg -= 360.0;
    else if (east_deg < -180.0)
        east_deg += 360.0;
    float narrowed = cosf((float)(own->latitude_deg * RAD_PER_DEG)); /* a degree of longitude, by latitude */
    float east_m = (float)(east_deg * RAD_PER_DEG * EARTH_M) * narrowed;
    float north_m = (float)(((double)told->latitude_deg - own->latitude_deg) * RAD_PER_DEG * EARTH_M);
    float moved_m = told->speed_mps * age_s;
    east_m += moved_m * sinf(told_rad);
    north_m += moved_m * cosf(told_rad);
    row[ROADSENSE_PEER_FORWARD] = along_east * east_m + along_north * north_m;
    row[ROADSENSE_PEER_LEFT] = along_east * north_m - along_north * east_m;
    row[ROADSENSE_PEER_RELATIVE_SPEED] = told->speed_mps - own->speed_mps;
    row[ROADSENSE_PEER_SIN_HEADING] = sinf(turned);
    row[ROADSENSE_PEER_COS_HEADING] = cosf(turned);
    row[ROADSENSE_PEER_ACCEL] = told->accel_mps2;
    row[ROADSENSE_PEER_AGE] = age_s;
    row[ROADSENSE_PEER_HOPS] = (float)told->hops;
    for (int i = 0; i < ROADSENSE_NUM_PEER; i++)
        row[i] = clipped(row[i] / peer_scales[i], peer_lows[i], peer_highs[i]);
}

/* Ends the running step of all windows and ages the table; returns the share of beacons heard in the last second. */
static float close_step(struct peer_table *table, int64_t now_us)
{
    int present = 0, heard = 0;
    for (int p = 0; p < PEER_CAPACITY; p++) {
        struct peer *peer = &table->peers[p];
        if (!peer->is_known)
            continue;
        peer->heard[table->step] = peer->heard_now;
        peer->heard_now = 0;
        if (peer->count > 0 && now_us - peer->arrived_us[0] > PEER_STALE_US)
            peer->count = 0;
        if (peer->count == 0)
            continue;
        present++;
        for (int i = 0; i < PEER_WINDOW; i++)
            heard += peer->heard[i];
    }
    table->step = (table->step + 1) % PEER_WINDOW;
    return present > 0 ? (float)heard / (10.0f * (float)present) : 0.0f;
}

int peer_table_observe(struct peer_table *table, const struct own_state *own, int64_t now_us,
                       float ego[ROADSENSE_NUM_EGO], float peers[PEER_ROWS * ROADSENSE_NUM_PEER],
                       signed char mask[PEER_ROWS])
{
    int rows = 0;
    ego[ROADSENSE_EGO_SPEED] = own->speed_mps;
    ego[ROADSENSE_EGO_ACCEL] = own->accel_mps2;
    ego[ROADSENSE_EGO_PREVIOUS_ACTION] = own->previous_action;
    ego[ROADSENSE_EGO_HEARD_SHARE] = close_step(table, now_us);
    for (int i = 0; i < ROADSENSE_NUM_EGO; i++)
        ego[i] = clipped(ego[i] / ego_scales[i], ego_lows[i], ego_highs[i]);
    for (int p = 0; p < PEER_CAPACITY; p++) {
        const struct peer *peer = &table->peers[p];
        for (int entry = 0; entry < peer->count; entry++) {
            float age_s = (float)(now_us - peer->arrived_us[entry]) * 1e-6f;
            write_row(own, &peer->messages[entry], age_s, peers + rows * ROADSENSE_NUM_PEER);
            mask[rows++] = 1;
        }
    }
    return rows;
}
