"""What arrives: the ESP-NOW radio, and the sensors whose readings it carries.

``params`` reads a file of measured figures, ``state`` holds the arrays, ``sensors``, ``channel`` and ``kernels`` are
the rules over them, ``emulator`` is the way in for those who bring no environment.
"""
