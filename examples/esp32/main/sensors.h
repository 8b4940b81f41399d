/* What the car must provide: its own sensors in, its request out. main.c calls these; a car implements them. */
#ifndef SENSORS_H
#define SENSORS_H

#include "message.h"
#include "peer_table.h"

/* The car's own state at this moment, its position carried on from the last fix by its speed. 0: unknown. */
int sensors_read(struct own_state *own);

/* The 90 bytes to broadcast of the car's own state, with hop count 0. 0: unknown, nothing is sent. */
int sensors_message(uint8_t data[MESSAGE_BYTES]);

/* Asks for this deceleration until the next call; 0 asks for nothing. */
void brake_request(float decel_mps2);

#endif
