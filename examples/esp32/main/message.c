#include "message.h"

#include <string.h>

enum {
    AT_ID = 1,
    AT_TIMESTAMP = 9,
    AT_LATITUDE = 13,
    AT_SPEED = 25,
    AT_HEADING = 29,
    AT_ACCEL = 33,
    AT_CONFIDENCE = 79,
    AT_HOPS = 83
};

/* Of every float: where it stands, lowest and highest. */
static const struct {
    int at, count;
    float low, high;
} bounds[] = {
    {AT_LATITUDE, 1, -90.0f, 90.0f},
    {17, 1, -180.0f, 180.0f},     /* longitude */
    {21, 1, -500.0f, 10000.0f},   /* altitude */
    {AT_SPEED, 1, 0.0f, 120.0f},
    {AT_HEADING, 1, 0.0f, 360.0f}, /* but not 360 itself */
    {AT_ACCEL, 5, -160.0f, 160.0f}, /* along, across, and of the sensor's axes */
    {53, 3, -35.0f, 35.0f},       /* turning */
    {65, 3, -5000.0f, 5000.0f},   /* magnetic field */
    {AT_CONFIDENCE, 1, 0.0f, 1.0f},
};

static uint32_t whole_at(const uint8_t *data)
{
    return (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
}

static float float_at(const uint8_t *data)
{
    uint32_t bits = whole_at(data);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static int is_id(const uint8_t *id)
{
    int size = 0;
    while (size < MESSAGE_ID_BYTES && id[size] != 0) {
        if (id[size] < 0x20 || id[size] > 0x7e)
            return 0;
        size++;
    }
    for (int i = size; i < MESSAGE_ID_BYTES; i++)
        if (id[i] != 0)
            return 0;
    return size > 0;
}

int message_read(const uint8_t *data, size_t length, struct message *message)
{
    if (length != MESSAGE_BYTES || data[0] != MESSAGE_VERSION)
        return 0;
    if (!is_id(data + AT_ID) || data[AT_HOPS] > MESSAGE_MAX_HOPS)
        return 0;
    for (size_t b = 0; b < sizeof bounds / sizeof bounds[0]; b++)
        for (int i = 0; i < bounds[b].count; i++) {
            float value = float_at(data + bounds[b].at + 4 * i);
            if (!(value >= bounds[b].low && value <= bounds[b].high)) /* neither is NaN */
                return 0;
        }
    if (float_at(data + AT_HEADING) >= 360.0f)
        return 0;
    memcpy(message->id, data + AT_ID, MESSAGE_ID_BYTES);
    message->timestamp_ms = whole_at(data + AT_TIMESTAMP);
    message->latitude_deg = float_at(data + AT_LATITUDE);
    message->longitude_deg = float_at(data + AT_LATITUDE + 4);
    message->speed_mps = float_at(data + AT_SPEED);
    message->heading_deg = float_at(data + AT_HEADING);
    message->accel_mps2 = float_at(data + AT_ACCEL);
    message->hops = data[AT_HOPS];
    return 1;
}
