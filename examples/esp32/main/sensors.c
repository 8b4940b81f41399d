/* A car without sensors and brakes: knows nothing, asks the log. Replace this file. */
#include "sensors.h"

#include "esp_log.h"

int sensors_read(struct own_state *own)
{
    (void)own;
    return 0;
}

int sensors_message(uint8_t data[MESSAGE_BYTES])
{
    (void)data;
    return 0;
}

void brake_request(float decel_mps2)
{
    if (decel_mps2 > 0.0f)
        ESP_LOGI("brake", "%.2f m/s2", (double)decel_mps2);
}
