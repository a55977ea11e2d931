"""Stops one thread of a process, as a loop that never ends would: stall.py PID THREAD-NAME SECONDS.

A signal would stop the whole process, so the thread is held as a debugger holds it. Prints `held`, then `released` or `gone`.
"""

import ctypes
import os
import sys
import time

PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000


def main() -> None:
    pid, name, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

    def ptrace(request: int, thread: int) -> None:
        if libc.ptrace(request, thread, None, None) != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"ptrace: {os.strerror(error)}; see kernel.yama.ptrace_scope")

    folder = f"/proc/{pid}/task"
    names = {int(task): open(f"{folder}/{task}/comm", encoding="utf-8").read().strip() for task in os.listdir(folder)}
    thread = min(task for task, comm in names.items() if comm == name)
    ptrace(PTRACE_SEIZE, thread)
    ptrace(PTRACE_INTERRUPT, thread)
    os.waitpid(thread, WALL)
    print("held", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        # A process cannot end while somebody holds one of its threads and does not look.
        if os.waitpid(thread, WALL | os.WNOHANG) != (0, 0):
            print("gone", flush=True)
            return
        time.sleep(0.02)
    ptrace(PTRACE_DETACH, thread)
    print("released", flush=True)


main()
