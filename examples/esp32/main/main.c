/* The board: radio, clock and task. All that is decided stands in peer_table.c and model.c. */
#include "model.h"
#include "peer_table.h"
#include "sensors.h"

#include <math.h>
#include <string.h>

#include "esp_err.h"
#include "esp_event.h"
#include "esp_log.h"
#include "esp_netif.h"
#include "esp_now.h"
#include "esp_timer.h"
#include "esp_wifi.h"
#include "freertos/FreeRTOS.h"
#include "freertos/queue.h"
#include "freertos/task.h"
#include "nvs_flash.h"

#define OWN_ID "V001"
#define CHANNEL 1
#define STEP_MS 100
#define QUEUED 64 /* messages of one step: sixteen peers, relayed copies included */
#define STACK_BYTES 8192

static const char tag[] = "roadsense";
static const uint8_t everybody[ESP_NOW_ETH_ALEN] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

struct arrival {
    int64_t at_us;
    uint8_t data[MESSAGE_BYTES];
};

static QueueHandle_t arrivals;

/* In the task of the radio: notes the time and leaves. What finds the queue full is lost like any lost message. */
static void on_receive(const esp_now_recv_info_t *info, const uint8_t *data, int length)
{
    struct arrival arrival = {.at_us = esp_timer_get_time()};
    (void)info;
    if (length != MESSAGE_BYTES)
        return;
    memcpy(arrival.data, data, MESSAGE_BYTES);
    xQueueSend(arrivals, &arrival, 0);
}

static void radio_begin(void)
{
    wifi_init_config_t config = WIFI_INIT_CONFIG_DEFAULT();
    esp_now_peer_info_t peer = {.channel = CHANNEL, .ifidx = WIFI_IF_STA};
    esp_err_t stored = nvs_flash_init();
    if (stored == ESP_ERR_NVS_NO_FREE_PAGES || stored == ESP_ERR_NVS_NEW_VERSION_FOUND) {
        ESP_ERROR_CHECK(nvs_flash_erase());
        stored = nvs_flash_init();
    }
    ESP_ERROR_CHECK(stored);
    ESP_ERROR_CHECK(esp_netif_init());
    ESP_ERROR_CHECK(esp_event_loop_create_default());
    ESP_ERROR_CHECK(esp_wifi_init(&config));
    ESP_ERROR_CHECK(esp_wifi_set_storage(WIFI_STORAGE_RAM));
    ESP_ERROR_CHECK(esp_wifi_set_mode(WIFI_MODE_STA));
    ESP_ERROR_CHECK(esp_wifi_start());
    ESP_ERROR_CHECK(esp_wifi_set_ps(WIFI_PS_NONE)); /* a radio that sleeps misses beacons */
    ESP_ERROR_CHECK(esp_wifi_set_channel(CHANNEL, WIFI_SECOND_CHAN_NONE));
    ESP_ERROR_CHECK(esp_now_init());
    memcpy(peer.peer_addr, everybody, sizeof everybody);
    ESP_ERROR_CHECK(esp_now_add_peer(&peer));
    ESP_ERROR_CHECK(esp_now_register_recv_cb(on_receive));
}

static void take_arrivals(struct peer_table *table)
{
    struct arrival arrival;
    struct message message;
    while (xQueueReceive(arrivals, &arrival, 0) == pdTRUE)
        if (message_read(arrival.data, MESSAGE_BYTES, &message))
            peer_table_take(table, &message, arrival.at_us);
}

/* The action of a step; 0 where there is no decision. */
static float decide(struct peer_table *table, float previous_action)
{
    static float ego[ROADSENSE_NUM_EGO], peers[PEER_ROWS * ROADSENSE_NUM_PEER];
    static signed char mask[PEER_ROWS];
    struct own_state own = {.speed_mps = 0.0f};
    float action;
    int rows;
    if (!sensors_read(&own))
        own.speed_mps = NAN; /* the table ages all the same, and the policy refuses */
    own.previous_action = previous_action;
    rows = peer_table_observe(table, &own, esp_timer_get_time(), ego, peers, mask);
    action = roadsense_act(ego, peers, mask, rows);
    if (action == ROADSENSE_REFUSED) {
        ESP_LOGE(tag, "no decision: own state unknown");
        return 0.0f;
    }
    return action;
}

static void assist(void *unused)
{
    static struct peer_table table;
    uint8_t beacon[MESSAGE_BYTES];
    float action = 0.0f;
    TickType_t woken = xTaskGetTickCount();
    (void)unused;
    peer_table_begin(&table, OWN_ID);
    for (;;) {
        take_arrivals(&table);
        action = decide(&table, action);
        brake_request(action < ROADSENSE_DEAD_BAND ? 0.0f : action * ROADSENSE_FULL_BRAKE_MPS2);
        if (sensors_message(beacon) && esp_now_send(everybody, beacon, sizeof beacon) != ESP_OK)
            ESP_LOGW(tag, "beacon not sent");
        vTaskDelayUntil(&woken, pdMS_TO_TICKS(STEP_MS));
    }
}

void app_main(void)
{
    ESP_LOGI(tag, "weights %.12s, layout %.12s, control %s", roadsense_weights_digest, roadsense_layout_hash,
             ROADSENSE_CONTROL);
    if (strcmp(ROADSENSE_CONTROL, "brake") != 0) {
        ESP_LOGE(tag, "the policy drives, this board only brakes; train one with control \"brake\"");
        return;
    }
    arrivals = xQueueCreate(QUEUED, sizeof(struct arrival));
    if (arrivals == NULL || xTaskCreate(assist, "assist", STACK_BYTES, NULL, 5, NULL) != pdPASS) {
        ESP_LOGE(tag, "no memory for the queue or the task");
        return;
    }
    radio_begin();
}
