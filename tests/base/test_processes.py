"""Being asked to stop: which signals are taken, and which are left as somebody wanted them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from attnet.base.processes import StopSignal, variable_of


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_a_request_to_end_is_taken(name):
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), number)
            assert stop.number == number
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_under_nohup_a_hangup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.number is None and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGXCPU"])
def test_a_warning_that_somebody_else_heeds_is_left_to_them(name):
    number, heard = getattr(signal, name), []
    before = signal.signal(number, lambda *_: heard.append(number))
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), number)
            assert stop.number is None and heard == [number]
    finally:
        signal.signal(number, before)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_the_variables_that_a_process_was_started_with():
    words = [sys.executable, "-c", "print(flush=True); input()"]
    child = subprocess.Popen(words, env={**os.environ, "KEPT": "a=b"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()  # Linux tells the variables only after the program has begun
    try:
        assert variable_of(child.pid, "KEPT") == "a=b"
        assert variable_of(child.pid, "KEP") is None
    finally:
        child.communicate(b"\n")
    assert variable_of(child.pid, "KEPT") is None
