/* What was heard of the peers, and the observation the policy was trained on. Nothing of a board, no heap. */
#ifndef PEER_TABLE_H
#define PEER_TABLE_H

#include "message.h"
#include "model.h"

#include <stdint.h>

#define PEER_CAPACITY 16
#define PEER_ROWS (PEER_CAPACITY * ROADSENSE_MESSAGES_PER_PEER)
#define PEER_STALE_US 500000    /* a peer leaves the table this long after its newest message arrived */
#define PEER_MEMORY_MS 2000     /* a message older than the newest by more is not late but wrong */
#define PEER_RESTART_US 2000000 /* after this silence a sender may have restarted: any timestamp is believed */
#define PEER_REMEMBERED 32      /* timestamps by which a relayed copy is known to be one */
#define PEER_WINDOW 10          /* steps of the last second */

/* The car's own sensors at the step; a position it carried on from its last fix itself. */
struct own_state {
    double latitude_deg, longitude_deg;
    float speed_mps, accel_mps2;
    float heading_deg;     /* clockwise from north */
    float previous_action; /* what was decided at the step before, 0 where nothing was */
};

struct peer {
    struct message messages[ROADSENSE_MESSAGES_PER_PEER]; /* newest first */
    int64_t arrived_us[ROADSENSE_MESSAGES_PER_PEER];
    int count;          /* of these messages; 0 for a stale peer */
    char id[MESSAGE_ID_BYTES];
    int is_known;
    int64_t heard_us;   /* when anything new of it arrived last */
    uint32_t newest_ms; /* timestamp of the newest message ever heard */
    uint32_t remembered_ms[PEER_REMEMBERED];
    int remembered, next;
    uint8_t heard[PEER_WINDOW]; /* messages by step, a ring */
    uint8_t heard_now;          /* since the last step */
};

struct peer_table {
    struct peer peers[PEER_CAPACITY];
    char own_id[MESSAGE_ID_BYTES];
    int step; /* place in the rings of the step that runs */
    unsigned long crowded; /* messages that found no room */
};

enum peer_result { PEER_TAKEN, PEER_COPY, PEER_TOO_OLD, PEER_OWN, PEER_CROWDED };

/* Empties the table. own_id: the car's own, of whose messages relayed copies come back; up to 8 characters. */
void peer_table_begin(struct peer_table *table, const char *own_id);

/* Takes in a message. arrived_us: by the receiver's clock, of which all times here are. */
enum peer_result peer_table_take(struct peer_table *table, const struct message *message, int64_t arrived_us);

/* Ends a step of 0.1 s: ages the table and writes the observation. Returns the number of rows, which are all used. */
int peer_table_observe(struct peer_table *table, const struct own_state *own, int64_t now_us,
                       float ego[ROADSENSE_NUM_EGO], float peers[PEER_ROWS * ROADSENSE_NUM_PEER],
                       signed char mask[PEER_ROWS]);

#endif
