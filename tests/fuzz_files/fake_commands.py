"""Commands that do what none may, by name: for the tests of the watch."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GRAB = "import time; grabbed = bytearray(400 << 20); time.sleep(30)"


def refuse():
    sys.exit("Error: mutated.keras is no model.")


def answer():
    print("cat")


def die():
    os.abort()


def leave():
    os._exit(3)


def hang():
    time.sleep(60)


def grab():
    bytearray(400 << 20)


def grab_and_hold():
    grabbed = bytearray(400 << 20)
    time.sleep(30)
    return grabbed


def grab_in_a_child():
    subprocess.run([sys.executable, "-c", GRAB], check=True)


def show_a_traceback():
    raise KeyError("x")


def call_it_a_fault():
    sys.exit("Error: KeyError: x\nThis is a fault of keras-vit, not of yours: --traceback shows where.")


def print_an_escape():
    print("\x1b[31mcat")


def print_an_escape_as_a_library_does():
    os.write(2, b"\xc2\x9b31m")
    sys.exit("Error: mutated.keras is no model.")


def leave_a_file():
    Path("out.tflite").write_bytes(b"half of it")
    refuse()


def write_over_a_file():
    Path("old.tflite").write_bytes(b"half of it")
    refuse()


def leave_a_temporary_file():
    tempfile.mkstemp()
    refuse()


def say_nothing():
    sys.exit(1)


def name_nothing():
    sys.exit("Error: something is wrong.")


def say_too_much():
    sys.exit("Error: mutated.keras\n" * 100)


def print_an_object():
    sys.exit("Error: mutated.keras is <object object at 0x7f0000000000>.")


def print_nan():
    print("cat nan%")


def print_an_error_and_go_on():
    print("Error: mutated.keras", file=sys.stderr)


def write_a_file_without_its_hash():
    Path("out.tflite").write_bytes(b"\x1c\0\0\0TFL3")


def main(arguments):
    globals()[arguments[0]]()
