/* Plays a recorded stream through the board's portable part. Records begin with one letter:
   D length, bytes: prints what is read of the message, or "refused";
   M time, 90 bytes: a message that arrives; prints nothing;
   T time, own state: a step; prints action, ego and rows, or "refused" for the action. */
#include "peer_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static FILE *stream;

static void take(void *into, size_t size)
{
    if (size > 0 && fread(into, size, 1, stream) != 1)
        exit(2);
}

static void print(const float *values, int count)
{
    for (int i = 0; i < count; i++)
        printf(" %.9g", (double)values[i]);
}

static void read_one(void)
{
    struct message message;
    uint32_t length;
    take(&length, sizeof length);
    uint8_t *data = malloc(length > 0 ? length : 1);
    if (data == NULL)
        exit(2);
    take(data, length);
    if (message_read(data, length, &message)) {
        float values[] = {message.latitude_deg, message.longitude_deg, message.speed_mps, message.heading_deg,
                          message.accel_mps2};
        for (int i = 0; i < MESSAGE_ID_BYTES; i++)
            printf("%02x", (unsigned)message.id[i]);
        printf(" %lu", (unsigned long)message.timestamp_ms);
        print(values, 5);
        printf(" %d\n", message.hops);
    } else {
        puts("refused");
    }
    free(data);
}

static void step(struct peer_table *table)
{
    static float ego[ROADSENSE_NUM_EGO], peers[PEER_ROWS * ROADSENSE_NUM_PEER];
    static signed char mask[PEER_ROWS];
    struct own_state own;
    int64_t now_us;
    take(&now_us, sizeof now_us);
    take(&own.latitude_deg, sizeof own.latitude_deg);
    take(&own.longitude_deg, sizeof own.longitude_deg);
    take(&own.speed_mps, sizeof own.speed_mps);
    take(&own.accel_mps2, sizeof own.accel_mps2);
    take(&own.heading_deg, sizeof own.heading_deg);
    take(&own.previous_action, sizeof own.previous_action);
    int rows = peer_table_observe(table, &own, now_us, ego, peers, mask);
    float action = roadsense_act(ego, peers, mask, rows);
    if (action == ROADSENSE_REFUSED)
        printf("refused");
    else
        printf("%.9g", (double)action);
    print(ego, ROADSENSE_NUM_EGO);
    print(peers, rows * ROADSENSE_NUM_PEER);
    printf("\n");
}

int main(int argc, char **argv)
{
    static struct peer_table table;
    char letter;
    stream = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (stream == NULL)
        return 2;
    peer_table_begin(&table, "V001");
    while (fread(&letter, 1, 1, stream) == 1) {
        if (letter == 'D') {
            read_one();
        } else if (letter == 'M') {
            uint8_t data[MESSAGE_BYTES];
            struct message message;
            int64_t arrived_us;
            take(&arrived_us, sizeof arrived_us);
            take(data, sizeof data);
            if (!message_read(data, sizeof data, &message))
                return 3;
            peer_table_take(&table, &message, arrived_us);
        } else {
            step(&table);
        }
    }
    fclose(stream);
    return 0;
}
