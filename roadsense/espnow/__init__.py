"""What arrives: the ESP-NOW radio emulator and its parameters."""
