/* The 90-byte message that boards broadcast: little-endian, packed. */
#ifndef MESSAGE_H
#define MESSAGE_H

#include <stddef.h>
#include <stdint.h>

#define MESSAGE_BYTES 90
#define MESSAGE_VERSION 1
#define MESSAGE_ID_BYTES 8
#define MESSAGE_MAX_HOPS 3

/* Of a message, what the policy's observation needs. */
struct message {
    char id[MESSAGE_ID_BYTES]; /* printable ASCII, filled up with zeros */
    uint32_t timestamp_ms;     /* of the sender's own clock, which agrees with nobody else's */
    float latitude_deg, longitude_deg;
    float speed_mps;
    float heading_deg; /* clockwise from north */
    float accel_mps2;  /* along the car */
    int hops;          /* relays it went through */
};

/* Reads a message. 0: the length or the version is another one, or it states something impossible (also NaN) in any of
   its fields; the message is then left as it was. */
int message_read(const uint8_t *data, size_t length, struct message *message);

#endif
