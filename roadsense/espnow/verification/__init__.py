"""The proof that the emulator plays what its parameters say."""
