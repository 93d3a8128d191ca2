from __future__ import annotations

import os
import signal
import threading

import pytest

from tripletune.training.signals import EvaluationInterrupted, StopRequest


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_first_signal_is_a_request(name):
    with StopRequest().listening() as stop:
        assert not stop
        send(getattr(signal, name))
        assert stop
        assert stop.signal_name == name


def test_second_signal_leaves_at_once():
    with StopRequest().listening():
        send()
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_signals_mean_what_they_did_before_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopRequest().listening():
        pass
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_signal_ends_an_evaluation_at_once():
    def evaluate(stop: StopRequest) -> None:
        with stop.interrupting():
            send()
            threading.Event().wait(5)
            pytest.fail("the evaluation went on")

    with StopRequest().listening() as stop, pytest.raises(EvaluationInterrupted):
        evaluate(stop)


def test_evaluation_is_not_begun_after_a_signal():
    with StopRequest().listening() as stop:
        send()
        with pytest.raises(EvaluationInterrupted), stop.interrupting():
            pytest.fail("the evaluation began")


def test_signal_after_an_evaluation_is_a_request_again():
    with StopRequest().listening() as stop:
        with stop.interrupting():
            pass
        send()
        assert stop


def test_other_threads_take_no_signals():
    seen = []

    def run() -> None:
        with StopRequest().listening() as stop:
            seen.append((bool(stop), signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
