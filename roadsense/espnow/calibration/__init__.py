"""Parameters from measurements, and the proof that the emulator plays what its parameters say."""
